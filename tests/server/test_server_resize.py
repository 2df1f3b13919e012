"""PodResizeValidator: a Pod on a node may not be resized beyond what the node has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from apis import running

PODS = "/api/v1/namespaces/default/pods"
MERGE = {"Content-Type": "application/strategic-merge-patch+json"}
SHORT = "node didn't have enough allocatable resources: "


def sized(name: str, node: str, cpu: str = "1", memory: str = "1Gi") -> dict[str, Any]:
    requests = {"cpu": cpu, "memory": memory}
    container = {"name": "c", "image": "i", "resources": {"requests": requests}}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **({"nodeName": node} if node else {})}}


@pytest.mark.parametrize(
    ("node", "requests", "told"),
    [
        ("small", {"cpu": "2"}, None),
        ("", {"cpu": "64"}, None),
        ("small", {"cpu": "2500m"}, ("NodeCapacity", SHORT + "cpu, requested: 2500, allocatable: 2000")),
        (
            "small",
            {"cpu": "3", "memory": "3Gi"},
            (
                "NodeCapacity",
                SHORT + "cpu, requested: 3000, allocatable: 2000; "
                "memory, requested: 3221225472, allocatable: 2147483648",
            ),
        ),
        (
            "windows",
            {"cpu": "2"},
            ("UnsupportedPlatform", 'pod resize is only supported on linux nodes, node "windows" is "windows"'),
        ),
        ("windows", {"cpu": "1"}, None),
        ("gone", {"cpu": "2"}, ("", 'node "gone" not found')),
    ],
)
async def test_resizes(tmp_path: Path, node: str, requests: dict[str, str], told: tuple[str, str] | None) -> None:
    async with running(tmp_path) as api:
        for name, system in (("small", "linux"), ("windows", "windows")):
            made = {"metadata": {"name": name, "labels": {"kubernetes.io/os": system}}}
            allocatable = {"cpu": "2", "memory": "2Gi"}
            await api.create("/api/v1/nodes", {**made, "status": {"allocatable": allocatable, "capacity": allocatable}})
        await api.create(PODS, sized("p", node))
        patch = {"spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}}
        answer = await api.request("PATCH", f"{PODS}/p/resize", patch, headers=MERGE)
        if told is None:
            assert answer.status == 200, answer.body
            return
        reason, why = told
        assert (answer.status, answer.json["message"]) == (403, f'pods "p" is forbidden: {why}')
        assert answer.json["details"].get("causes") == ([{"reason": reason}] if reason else None)
