"""Paths and methods as Kubernetes reads them."""

from __future__ import annotations

import pytest

from fastkube.server.request import RequestInfo, UnreadablePathError, parse_query, split_target

RESOURCES = [
    # method, path, query → verb, group, version, namespace, resource, subresource, name
    ("GET", "/api/v1/pods", "", ("list", "", "v1", "", "pods", "", "")),
    ("GET", "/api/v1/namespaces/a/pods", "", ("list", "", "v1", "a", "pods", "", "")),
    ("GET", "/api/v1/namespaces/a/pods/p", "", ("get", "", "v1", "a", "pods", "", "p")),
    ("GET", "/api/v1/namespaces/a/pods/p/log", "", ("get", "", "v1", "a", "pods", "log", "p")),
    ("HEAD", "/api/v1/namespaces/a/pods/p", "", ("get", "", "v1", "a", "pods", "", "p")),
    ("GET", "/api/v1/namespaces", "", ("list", "", "v1", "", "namespaces", "", "")),
    ("GET", "/api/v1/namespaces/a", "", ("get", "", "v1", "a", "namespaces", "", "a")),
    ("PUT", "/api/v1/namespaces/a/status", "", ("update", "", "v1", "a", "namespaces", "status", "a")),
    ("PUT", "/api/v1/namespaces/a/finalize", "", ("update", "", "v1", "a", "namespaces", "finalize", "a")),
    ("POST", "/apis/apps/v1/namespaces/a/deployments", "", ("create", "apps", "v1", "a", "deployments", "", "")),
    (
        "PATCH",
        "/apis/apps/v1/namespaces/a/deployments/d/scale",
        "",
        ("patch", "apps", "v1", "a", "deployments", "scale", "d"),
    ),
    (
        "DELETE",
        "/apis/apps/v1/namespaces/a/deployments",
        "",
        ("deletecollection", "apps", "v1", "a", "deployments", "", ""),
    ),
    ("DELETE", "/api/v1/nodes/n", "", ("delete", "", "v1", "", "nodes", "", "n")),
    ("GET", "/api/v1/pods", "watch=1", ("watch", "", "v1", "", "pods", "", "")),
    ("GET", "/api/v1/pods", "watch=true", ("watch", "", "v1", "", "pods", "", "")),
    ("GET", "/api/v1/pods", "watch=", ("watch", "", "v1", "", "pods", "", "")),
    ("GET", "/api/v1/pods", "watch=false", ("list", "", "v1", "", "pods", "", "")),
    ("GET", "/api/v1/pods", "watch=0", ("list", "", "v1", "", "pods", "", "")),
    ("GET", "/api/v1/watch/namespaces/a/pods", "", ("watch", "", "v1", "a", "pods", "", "")),
    ("GET", "/api/v1/watch/namespaces/a/pods/p", "", ("watch", "", "v1", "a", "pods", "", "p")),
    ("GET", "/api/v1/namespaces/a/pods", "fieldSelector=metadata.name%3Dp", ("list", "", "v1", "a", "pods", "", "p")),
    ("GET", "/api/v1/namespaces/a/pods", "fieldSelector=metadata.name!%3Dp", ("list", "", "v1", "a", "pods", "", "")),
    (
        "GET",
        "/api/v1/namespaces/a/pods",
        "watch=1&fieldSelector=spec.nodeName%3Dn,metadata.name%3D%3Dp",
        ("watch", "", "v1", "a", "pods", "", "p"),
    ),
    ("GET", "/api/v1/pods/", "", ("list", "", "v1", "", "pods", "", "")),
    ("FOO", "/api/v1/pods", "", ("", "", "v1", "", "pods", "", "")),
]


@pytest.mark.parametrize(("method", "path", "query", "expected"), RESOURCES)
def test_resource_paths(method: str, path: str, query: str, expected: tuple[str, ...]) -> None:
    info = RequestInfo(method, path, parse_query(query))
    assert info.is_resource
    found = (info.verb, info.group, info.version, info.namespace, info.resource, info.subresource, info.name)
    assert found == expected


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/v1", "/api/v1/", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "//api"]
)
def test_other_paths(path: str) -> None:
    info = RequestInfo("GET", path, {})
    assert (info.is_resource, info.verb, info.path) == (False, "get", path)


def test_a_watch_path_without_resource_is_an_error() -> None:
    with pytest.raises(UnreadablePathError, match="from url, /api/v1/watch"):
        RequestInfo("GET", "/api/v1/watch", {})


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/api/v1/pods?a=b&c", "/api/v1/pods", "a=b&c"),
        ("/a%2Eb/c%2Fd", "/a.b/c/d", ""),
        ("http://host:1/api?x=1", "/api", "x=1"),
        ("http://host", "/", ""),
    ],
)
def test_targets(target: str, path: str, query: str) -> None:
    assert split_target(target) == (path, query)


def test_the_first_value_of_a_query_key_counts() -> None:
    assert parse_query("limit=1&limit=2&x=&y=%2B+") == {"limit": "1", "x": "", "y": "+ "}


def test_long_running_requests() -> None:
    assert RequestInfo("GET", "/api/v1/pods", {"watch": "1"}).long_running
    assert RequestInfo("GET", "/api/v1/namespaces/a/pods/p/log", {}).long_running
    assert not RequestInfo("GET", "/api/v1/namespaces/a/pods/p", {}).long_running
