"""JSONPath of printer columns."""

import pytest

from fastkube.api import jsonpath

DOCUMENT = {
    "metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "web"}},
    "spec": {"replicas": 3, "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53}], "empty": []},
    "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Synced", "status": "False"}]},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.replicas", [3]),
        ("$.spec.replicas", [3]),
        ("{.spec.replicas}", [3]),
        (".spec.none.deeper", []),
        (".metadata.labels.app\\.kubernetes\\.io/name", ["web"]),
        (".metadata.labels['app.kubernetes.io/name']", ["web"]),
        ('.spec["replicas","none"]', [3]),
        (".spec.ports[0].name", ["http"]),
        (".spec.ports[-1].name", ["dns"]),
        (".spec.ports[5].name", []),
        (".spec.ports[*].port", [80, 53]),
        (".spec.ports[0,1].port", [80, 53]),
        (".spec.ports[1:].port", [53]),
        (".spec.ports[:1].port", [80]),
        (".spec.empty[0]", []),
        (".metadata.*", ["a", {"app.kubernetes.io/name": "web"}]),
        ("..port", [80, 53]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type != 'Ready')].status", ["False"]),
        (".spec.ports[?(@.port>=80)].name", ["http"]),
        (".spec.ports[?(@.port < 60.5)].name", ["dns"]),
        (".spec.ports[?(@.port < 'x')].name", []),
        (".spec.ports[?(@.name)].port", [80, 53]),
        (".spec.ports[?(@.none == true)].port", []),
        (".spec.replicas[?(@.x)]", []),
        ("", [DOCUMENT]),
    ],
)
def test_what_a_path_finds(path, found):
    assert jsonpath.compile(path).find(DOCUMENT) == found


@pytest.mark.parametrize("path", ["spec", ".spec[", ".spec[x]", ".spec['a'x]", ".a..", ".x[?(@.a==b)]"])
def test_what_is_no_path(path):
    with pytest.raises(ValueError, match="JSONPath"):
        jsonpath.compile(path)
