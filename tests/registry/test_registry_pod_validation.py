"""What is refused of Pods, dropped from them and warned about, in upstream's words."""

from typing import Any

import pytest
from clusters import Cluster
from kinds import causes, changed

from fastkube.errors import ApiError

MAPPED_RESOURCE = (
    "must match the extended resource name of an entry in spec.initContainers.resources.requests or "
    "spec.containers.resources.requests"
)
ORDER = "containers may not be renamed or reordered on resize"


def pod(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    return changed({"metadata": {"name": "a"}, "spec": spec}, changes or {})


async def complaints(writing: Any) -> list[str]:
    try:
        await writing
    except ApiError as error:
        return causes(error)
    return []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"spec.hostPID": True, "spec.shareProcessNamespace": True},
            [
                "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID "
                "cannot both be enabled"
            ],
        ),
        (
            {"spec.securityContext": {"seLinuxChangePolicy": "MountOption"}},
            [
                'spec.securityContext.seLinuxChangePolicy: Unsupported value: "MountOption": '
                'supported values: "Recursive"'
            ],
        ),
        (
            {"spec.dnsConfig": {"searches": ["_a", "A"]}},
            [
                'spec.dnsConfig.searches[1]: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower '
                "case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character "
                "(e.g. 'example.com', regex used for validation is "
                "'_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')"
            ],
        ),
        (
            {"spec.resources": {"requests": {"storage": "1"}, "limits": {"storage": "1"}}},
            [
                f'spec.resources.{part}[storage]: Unsupported value: "storage": '
                'supported values: "cpu", "hugepages-", "memory"'
                for part in ("limits", "requests")
            ],
        ),
    ],
)
async def test_a_bad_pod_is_refused(cluster: Cluster, changes: dict, told: list[str]):
    assert await complaints(cluster.create("pods", pod(changes))) == told


async def test_a_lifecycle_of_nothing_but_a_stop_signal_is_dropped(cluster: Cluster):
    made = await cluster.create("pods", pod({"spec.containers.0.lifecycle": {"stopSignal": "SIGTERM"}}))
    assert "lifecycle" not in made["spec"]["containers"][0]


async def test_field_sets_escape_what_could_be_markup(cluster: Cluster):
    made = await cluster.create("pods", pod({"spec.containers.0.env": [{"name": "<&>", "value": "x"}]}))
    fields = made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:containers"]['k:{"name":"c"}']
    assert 'k:{"name":"\\u003c\\u0026\\u003e"}' in fields["f:env"]


@pytest.mark.parametrize(
    ("volume", "told"),
    [
        (
            {"gitRepo": {"repository": "r"}},
            ["spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"],
        ),
        (
            {"configMap": {"name": "m", "items": [{"key": "a", "path": "x"}, {"key": "b", "path": "x/y"}]}},
            ['volume "v" (ConfigMap "m"): overlapping paths: "x/y" with "x"'],
        ),
        (
            {
                "projected": {
                    "sources": [
                        {"secret": {"name": "s", "items": [{"key": "a", "path": "x"}]}},
                        {"downwardAPI": {"items": [{"path": "x/y", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                        {"clusterTrustBundle": {"name": "t", "path": "p"}},
                    ]
                }
            },
            [
                'volume "v" (Projected): overlapping paths: "x/y" (DownwardAPI) with "x" (Secret "s")',
                'volume "v" (Projected) has no sources provided',
            ],
        ),
    ],
)
async def test_files_in_each_others_way_are_warned_about(cluster: Cluster, volume: dict, told: list[str]):
    await cluster.create("pods", pod({"spec.volumes": [{"name": "v", **volume}]}))
    assert cluster.warnings == told


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        (
            {"containerName": "c", "resourceName": "a/b"},
            f'requestMappings[0].resourceName: Invalid value: "a/b": {MAPPED_RESOURCE}',
        ),
        (
            {"containerName": "x", "resourceName": "a/b"},
            'requestMappings[0].containerName: Invalid value: "x": must match the name of an entry in '
            "spec.initContainers.name or spec.containers.name",
        ),
    ],
)
async def test_a_claim_for_extended_resources_names_what_the_pod_asks_for(cluster: Cluster, mapping: dict, told: str):
    made = await cluster.create("pods", pod())
    claim = {"requestMappings": [{**mapping, "requestName": "r"}], "resourceClaimName": "k"}
    made["status"]["extendedResourceClaimStatus"] = claim
    found = await complaints(cluster.update("pods/status", made))
    assert found == [f"status.extendedResourceClaimStatus.{told}"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"spec.containers.1": {"name": "d", "image": "i"}},
            ["spec.containers: Forbidden: containers may not be added or removed on resize"],
        ),
        ({"spec.containers.0.name": "d"}, [f"spec.containers[0].name: Forbidden: {ORDER}"]),
        ({"spec.resources": None}, ["spec.resources: Forbidden: pod-level resources cannot be removed"]),
        (
            {"spec.resources.requests.memory": None},
            ["spec.resources.requests: Forbidden: pod-level resource requests cannot be removed"],
        ),
        ({"spec.resources.requests.cpu": "2"}, []),
    ],
)
async def test_what_a_resize_may_change(cluster: Cluster, changes: dict, told: list[str]):
    made = await cluster.create("pods", pod({"spec.resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}))
    found = await complaints(cluster.update("pods/resize", changed(made, changes)))
    assert [one for one in found if "QOS" not in one] == told
