"""Whatever is asked, the answer is a Status of the client's doing: no 500, and the server goes on."""

from __future__ import annotations

import random
from urllib.parse import quote

from apis import Api

SEGMENTS = (
    "api", "apis", "v1", "v2", "apps", "namespaces", "default", "pods", "deployments", "configmaps", "a", "status",
    "scale", "log", "exec", "proxy", "watch", "", "..", "%2F", "%00", "%zz", "é", "x" * 300, "events.k8s.io",
    "openapi", "v3", "healthz", "metrics", "version", "token", "binding", "eviction", "selfsubjectreviews",
    "authentication.k8s.io", "authorization.k8s.io", "selfsubjectaccessreviews", "nodes", "autoscaling",
)  # fmt: skip
KEYS = (
    "watch", "limit", "continue", "labelSelector", "fieldSelector", "resourceVersion", "resourceVersionMatch",
    "timeoutSeconds", "allowWatchBookmarks", "sendInitialEvents", "dryRun", "fieldManager", "fieldValidation",
    "pretty", "includeObject", "propagationPolicy", "gracePeriodSeconds", "timeout", "verbose", "force", "hash",
)  # fmt: skip
VALUES = (
    "", "0", "1", "-1", "true", "false", "x", "All", "Exact", "NotOlderThan", "Strict", "99999999999999999999", "é\n",
    "a=b", "a in (b,c)", "!a", "((", "metadata.name=a", "spec.nodeName!=b", "a\\", "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ",
    "1s", "Background", "\x00",
)  # fmt: skip
ACCEPTS = (
    "application/json", "application/yaml", "application/msgpack", "*/*", "text/html", "", ";;;", "a/b;q=x",
    "application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
)  # fmt: skip
BODIES = (
    b"", b"{}", b"[]", b"null", b"1", b'"x"', b"{", b"\xff\xfe", b'{"metadata":[]}', b'{"metadata":{"name":5}}',
    b'{"kind":"Odd","apiVersion":"v1"}', b'{"apiVersion":1}', b'{"spec":{"containers":"x"}}', b'{"data":{"a":null}}',
    b'[{"op":"add","path":"/x"}]', b'[{"op":"test"}]', b'{"metadata":{"name":"a","labels":{"\\u0000":"b"}}}',
    b"[" * 2000, b'{"a":' * 2000, b'{"metadata":{"name":"' + b"a" * 5000 + b'"}}', b"a: [b", b"- x",
)  # fmt: skip
TYPES = (
    "application/json", "application/yaml", "application/msgpack", "application/merge-patch+json", "", "x",
    "application/json-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml",
)  # fmt: skip
METHODS = ("GET", "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")

UPSTREAM_SAYS_5XX = (
    b"resourceVersion: Invalid value",
    b"strconv.ParseUint",
    b"unable to determine kind and namespace from url",
    b"failed to create typed patch object",
    b"Too large resource version",
)


async def test_nothing_that_is_asked_breaks_the_server(api: Api) -> None:
    dice = random.Random(7)
    await api.create(
        "/api/v1/namespaces/default/configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    )
    for turn in range(3000):
        parts = dice.choices(SEGMENTS, k=dice.randrange(1, 8))
        if dice.random() < 0.6:
            kind = dice.choice(("pods", "configmaps", "events", "services", "nodes", "serviceaccounts"))
            parts = ["api", "v1", "namespaces", "default", kind, *dice.choices(SEGMENTS, k=dice.randrange(3))]
        query = "&".join(
            f"{dice.choice(KEYS)}={quote(dice.choice(VALUES))}" for _ in range(dice.choice((0, 0, 1, 2, 4)))
        )
        # a watch of nothing would last: let all of them be short
        path = "/" + "/".join(parts) + "?timeoutSeconds=1" + (f"&{query}" if query else "")
        method = dice.choice(METHODS)
        watching = method == "GET" and ("watch" in path)
        headers = {"Accept": dice.choice(ACCEPTS), "Content-Type": dice.choice(TYPES)}
        body = dice.choice(BODIES) if method in ("POST", "PUT", "PATCH", "DELETE") else None
        if watching:
            continue
        response = await api.request(method, path.encode().decode("ascii", "ignore"), body, headers=headers)
        about = f"turn {turn}: {method} {path} {headers} {body!r:.80}: {response.body[:300]!r}"
        assert b"Traceback" not in response.body, about
        if response.status in (500, 504):
            assert any(text in response.body for text in UPSTREAM_SAYS_5XX), about
        else:
            assert response.status < 500 or response.status == 501, about
    assert (await api.request("GET", "/readyz")).status == 200
    assert not api.server.running
