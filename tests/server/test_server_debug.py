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


async def test_statusz_for_people_and_as_an_object(api: Api):
    told = await api.request("GET", "/statusz", headers={"Accept": "*/*"})
    assert told.headers["Content-Type"] == "text/plain; charset=utf-8"
    lines = told.body.decode().splitlines()
    assert lines[1] == "kube-apiserver statusz" and "Emulation version: 1.36" in lines
    paths = next(line for line in lines if line.startswith("Paths: ")).split()
    assert {"/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/flagz"} < set(paths) and "/api" not in paths
    accept = "application/json;as=Statusz;v=v1beta1;g=config.k8s.io"
    status = await api.get("/statusz", headers={"Accept": accept})
    assert (status["kind"], status["apiVersion"], status["metadata"]) == (
        "Statusz", "config.k8s.io/v1beta1", {"name": "kube-apiserver"}
    )  # fmt: skip
    assert status["uptimeSeconds"] >= 0 and status["binaryVersion"].startswith("1.36")


async def test_flagz_of_both_versions(api: Api):
    text = (await api.request("GET", "/flagz", headers={"Accept": "text/plain"})).body.decode()
    assert "authorization-mode=[Node,RBAC]\n" in text and "anonymous-auth=true\n" in text
    accept = "application/json;as=Flagz;v=v1alpha1;g=config.k8s.io"
    old = await api.request("GET", "/flagz", headers={"Accept": accept})
    assert old.json["apiVersion"] == "config.k8s.io/v1alpha1" and old.json["flags"]["profiling"] == "true"
    assert "deprecated" in old.headers["Warning"]


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "application/json;as=Odd;v=v1beta1;g=config.k8s.io",
        "application/json;as=Flagz;v=v2;g=config.k8s.io",
        "image/png",
    ],
)
async def test_forms_that_a_page_does_not_have(api: Api, accept: str):
    answer = await api.request("GET", "/flagz", headers={"Accept": accept})
    accepted = "only the following media types are accepted: application/json, application/yaml, text/plain"
    assert (answer.status, answer.json["message"]) == (406, accepted)


async def test_pages_are_for_those_who_may_see_them(api: Api):
    for path in ("/statusz", "/flagz", "/debug/api_priority_and_fairness/dump_requests"):
        assert (await api.request("GET", path, token=ALICE)).status == 403
    index = (await api.get("/"))["paths"]
    assert {"/flagz", "/statusz"} < set(index) and not any(path.startswith("/debug") for path in index)
