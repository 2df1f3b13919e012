"""/debug/pprof and /fastkube/configz."""

from __future__ import annotations

from pathlib import Path

import pytest
from apis import ALICE, Api, running


async def test_the_options_in_force(api: Api):
    told = (await api.get("/fastkube/configz"))["apiserver.fastkube.dev"]
    assert told["max-requests-inflight"] == 400 and told["authorization-mode"] == ["Node", "RBAC"]
    assert (await api.request("GET", "/fastkube/configz", token=ALICE)).status == 403


async def test_stacks_and_samples_of_the_running_server(api: Api):
    stacks = (await api.request("GET", "/debug/pprof/goroutine?debug=2")).body.decode()
    assert stacks.startswith("Process ") and "Thread " in stacks
    sampled = await api.get("/debug/pprof/profile?seconds=1")
    assert sampled["profiles"] and sampled["$schema"].startswith("https://www.speedscope.app")
    drawn = await api.request("GET", "/debug/pprof/profile?seconds=1&format=flamegraph")
    assert drawn.headers["Content-Type"] == "image/svg+xml" and b"<svg" in drawn.body
    assert b"profile" in (await api.request("GET", "/debug/pprof/")).body
    assert (await api.request("GET", "/debug/pprof/goroutine", token=ALICE)).status == 403


@pytest.mark.parametrize(
    ("query", "code"), [("seconds=0", 400), ("seconds=x", 400), ("seconds=1&format=pprof", 400), ("seconds=9999", 400)]
)
async def test_profiles_that_cannot_be(api: Api, query: str, code: int):
    assert (await api.request("GET", f"/debug/pprof/profile?{query}")).status == code


async def test_profiling_can_be_switched_off(tmp_path: Path):
    async with running(tmp_path, profiling=False) as api:
        assert (await api.request("GET", "/debug/pprof/goroutine")).status == 404
