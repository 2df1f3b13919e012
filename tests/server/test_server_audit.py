"""The audit log: levels, stages, what an event holds, rotation, and the webhook."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from apis import ALICE, BOB, Api, running, until
from peers import Hook, serving

from fastkube.clock import ManualClock
from fastkube.server.audit_backends import LogFile
from fastkube.server.audit_options import AuditOptions
from fastkube.server.audit_policy import LEVELS, Policy
from fastkube.server.request import Attributes, UserInfo

MAPS = "/api/v1/namespaces/default/configmaps"


def policy(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(rules), **more}


@asynccontextmanager
async def audited(tmp_path: Path, *rules: dict[str, Any], **more: Any) -> AsyncIterator[tuple[Api, Path]]:
    file, log = tmp_path / "policy.yaml", tmp_path / "logs" / "audit.log"
    file.write_text(json.dumps(policy(*rules, **more)))
    options = {"audit_policy_file": str(file), "audit_log_path": str(log)}
    async with running(tmp_path / "api", **options) as api:
        yield api, log


def events(log: Path, verb: str = "") -> list[dict[str, Any]]:
    found = [json.loads(line) for line in log.read_text().splitlines()]
    return [event for event in found if not verb or event["verb"] == verb]


CORE_MAPS = [{"group": "", "resources": ["configmaps"]}]


async def test_an_event_tells_who_did_what_and_what_came_of_it(tmp_path: Path):
    rule = {"level": "RequestResponse", "resources": CORE_MAPS, "omitManagedFields": True}
    async with audited(tmp_path, rule, omitStages=["RequestReceived"]) as (api, log):
        await api.create(MAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}}, headers={"Audit-Id": "my-id"})
        (event,) = events(log, "create")
        assert event["kind"] == "Event" and event["apiVersion"] == "audit.k8s.io/v1"
        assert (event["level"], event["stage"], event["auditID"]) == ("RequestResponse", "ResponseComplete", "my-id")
        assert event["requestURI"] == MAPS and event["userAgent"] == "tests/1" and event["sourceIPs"] == ["127.0.0.1"]
        groups = ["system:masters", "system:authenticated"]
        assert event["user"] == {"username": "admin", "uid": "admin", "groups": groups}
        reference = {"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"}
        assert event["objectRef"] == reference
        assert event["responseStatus"] == {"metadata": {}, "code": 201}
        assert event["requestObject"]["data"] == {"k": "v"}
        assert event["responseObject"]["metadata"]["uid"] and "managedFields" not in event["responseObject"]["metadata"]
        assert event["annotations"]["authorization.k8s.io/decision"] == "allow"
        assert event["stageTimestamp"] >= event["requestReceivedTimestamp"]
        patch = {"data": {"k": "w"}}
        await api.merge(f"{MAPS}/a", patch)
        assert events(log, "patch")[0]["requestObject"] == patch
        await api.get("/api/v1/nodes")
        assert len(events(log)) == 2  # no rule is about nodes


async def test_failures_are_told_with_their_status(tmp_path: Path):
    async with audited(tmp_path, {"level": "Metadata"}, omitStages=["RequestReceived"]) as (api, log):
        assert (await api.request("GET", "/api/v1/nodes/none")).status == 404
        assert (await api.request("GET", "/api/v1/nodes", token=ALICE)).status == 403
        assert (await api.request("GET", "/version", token="wrong")).status == 401
        missing, forbidden, nobody = events(log)
        assert missing["responseStatus"]["reason"] == "NotFound" and missing["responseStatus"]["code"] == 404
        assert forbidden["annotations"]["authorization.k8s.io/decision"] == "forbid"
        assert "requestObject" not in missing and "responseObject" not in missing
        assert nobody["stage"] == "ResponseStarted" and nobody["user"] == {}
        told = nobody["responseStatus"]
        assert (told["message"], told["code"]) == ("Authentication failed, attempted: bearer", 401)


async def test_stages_of_a_watch(tmp_path: Path):
    async with audited(tmp_path, {"level": "Metadata", "verbs": ["watch"]}) as (api, log):
        async with api.watch(f"{MAPS}?watch=1&timeoutSeconds=1&resourceVersion=0"):
            stages = ["RequestReceived", "ResponseStarted"]
            await until(lambda: [event["stage"] for event in events(log)] == stages)
        await until(lambda: [event["stage"] for event in events(log)] == [*stages, "ResponseComplete"])


async def test_an_impersonated_user_is_told_besides(tmp_path: Path):
    async with audited(tmp_path, {"level": "Metadata"}, omitStages=["RequestReceived"]) as (api, log):
        await api.request("GET", "/version", headers={"Impersonate-User": "jane"})
        (event,) = events(log)
        assert event["user"]["username"] == "admin" and event["impersonatedUser"]["username"] == "jane"


async def test_pod_security_tells_of_violations(tmp_path: Path):
    async with audited(tmp_path, {"level": "Metadata", "verbs": ["create"]}, omitStages=["RequestReceived"]) as (
        api,
        log,
    ):
        labels = {"pod-security.kubernetes.io/audit": "baseline", "pod-security.kubernetes.io/enforce": "privileged"}
        await api.create("/api/v1/namespaces", {"metadata": {"name": "n", "labels": labels}})
        spec = {"hostNetwork": True, "containers": [{"name": "c", "image": "i"}]}
        await api.create("/api/v1/namespaces/n/pods", {"metadata": {"name": "p"}, "spec": spec})
        told = events(log)[-1]["annotations"]
        assert told["pod-security.kubernetes.io/enforce-policy"] == "privileged:latest"
        assert told["pod-security.kubernetes.io/audit-violations"].startswith(
            'would violate PodSecurity "baseline:latest"'
        )


async def test_nothing_is_audited_without_a_policy(tmp_path: Path):
    async with running(tmp_path / "api", audit_log_path=str(tmp_path / "audit.log")) as api:
        await api.get("/version")
    assert not (tmp_path / "audit.log").exists()


# ---------------------------------------------------------------- policy

ALICE_INFO = UserInfo("alice", ("dev", "system:authenticated"))


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ({}, True),
        ({"users": ["alice"]}, True),
        ({"users": ["bob"]}, False),
        ({"userGroups": ["ops", "dev"]}, True),
        ({"verbs": ["get", "update"]}, True),
        ({"verbs": ["list"]}, False),
        ({"namespaces": ["x"]}, False),
        ({"namespaces": ["n"]}, True),
        ({"resources": [{"group": "apps"}]}, True),
        ({"resources": [{"group": ""}]}, False),
        ({"resources": [{"group": "apps", "resources": ["deployments"]}]}, False),
        ({"resources": [{"group": "apps", "resources": ["deployments/scale"]}]}, True),
        ({"resources": [{"group": "apps", "resources": ["deployments/*"]}]}, True),
        ({"resources": [{"group": "apps", "resources": ["*/scale"]}]}, True),
        ({"resources": [{"group": "apps", "resources": ["*"], "resourceNames": ["d"]}]}, True),
        ({"resources": [{"group": "apps", "resources": ["*"], "resourceNames": ["e"]}]}, False),
        ({"nonResourceURLs": ["*"]}, False),
    ],
)
def test_rules_about_resources(rule: dict[str, Any], matches: bool):
    verdict = Policy(policy({"level": "Request", **rule})).verdict(
        ALICE_INFO, Attributes("update", "apps", "deployments", "scale", "n", "d")
    )
    assert (LEVELS[verdict.level] == "Request") == matches


@pytest.mark.parametrize(("url", "matches"), [("/version", True), ("/ver*", True), ("/x", False), ("*", True)])
def test_rules_about_paths(url: str, matches: bool):
    verdict = Policy(policy({"level": "Metadata", "nonResourceURLs": [url]})).verdict(
        ALICE_INFO, Attributes("get", path="/version")
    )
    assert bool(verdict.level) == matches


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"kind": "Policy"}, "expected a Policy of audit.k8s.io/v1"),
        (policy(), "rules: Required value"),
        (policy({"level": "All"}), 'rules[0].level: Unsupported value: "All"'),
        (policy({"level": "None", "omitStages": ["End"]}), "rules[0].omitStages[0]: Invalid value"),
        (policy({"level": "None", "nonResourceURLs": ["x"]}), "non-resource URLs must begin with a '/'"),
        (policy({"level": "None", "nonResourceURLs": ["/x"], "namespaces": ["n"]}), "both regular resources and"),
        (policy({"level": "None", "resources": [{"group": "", "resourceNames": ["n"]}]}), "at least one resource"),
        (policy({"level": "None", "user": ["n"]}), 'unknown field "user"'),
    ],
)
def test_policies_that_cannot_be(document: dict[str, Any], problem: str):
    with pytest.raises(ValueError) as refusal:
        Policy(document)
    assert problem in str(refusal.value)


# ---------------------------------------------------------------- backends


def rotated(folder: Path) -> list[int]:
    """The number of the event in each file, the current one last."""
    files = [*sorted(folder.glob("a-*.log")), folder / "a.log"]
    return [json.loads(path.read_text())["number"] for path in files]


def packed(folder: Path) -> list[int]:
    """The number of the event in each compressed file."""
    return [json.loads(gzip.decompress(path.read_bytes()))["number"] for path in folder.glob("a-*.log.gz")]


async def test_the_log_is_rotated(tmp_path: Path):
    clock = ManualClock(1_800_000_000.0)
    file = LogFile(str(tmp_path / "a.log"), clock, size_max_mb=1, backups_max=2, age_max_days=0, compress=False)
    for number in range(6):
        file.deliver([{"number": number, "padding": "x" * 700_000}])
        await clock.advance(1.0)
    await file.close()
    assert rotated(tmp_path) == [3, 4, 5]


async def test_rotated_logs_are_compressed(tmp_path: Path):
    clock = ManualClock(1_800_000_000.0)
    file = LogFile(str(tmp_path / "a.log"), clock, size_max_mb=1, backups_max=1, age_max_days=0, compress=True)
    for number in range(3):
        file.deliver([{"number": number, "padding": "x" * 700_000}])
        await clock.advance(1.0)
    await file.close()
    assert packed(tmp_path) == [1]
    assert json.loads((tmp_path / "a.log").read_text())["number"] == 2


@asynccontextmanager
async def to_webhook(tmp_path: Path, respond: Any, **options: Any) -> AsyncIterator[Api]:
    file = tmp_path / "policy.yaml"
    file.write_text(json.dumps(policy({"level": "RequestResponse"})))
    async with serving({"/": respond}) as url:
        hook = Hook(lambda spec: None)
        hook.url = url + "/"
        settings = {"audit_policy_file": str(file), "audit_webhook_config_file": hook.kubeconfig(tmp_path)}
        async with running(tmp_path / "api", audit_webhook_initial_backoff_s=0.001, **settings, **options) as api:
            yield api


async def test_blocking_means_that_the_webhook_has_the_events_before_the_client_its_answer(tmp_path: Path):
    stages: list[str] = []

    async def take(request: web.Request) -> web.Response:
        (event,) = (await request.json())["items"]
        await asyncio.sleep(0.05)
        if event["user"]["username"] == "bob":
            stages.append(event["stage"])
        return web.Response()

    async with to_webhook(tmp_path, take, audit_webhook_mode="blocking") as api:
        await api.request("GET", "/version", token=BOB)
        assert stages == ["RequestReceived", "ResponseComplete"]


@pytest.mark.parametrize(("mode", "code"), [("blocking", 200), ("blocking-strict", 500)])
async def test_a_request_whose_coming_cannot_be_told_fails_only_where_that_is_strict(
    tmp_path: Path, mode: str, code: int
):
    async def take(request: web.Request) -> web.Response:
        return web.Response(status=500)

    async with to_webhook(tmp_path, take, audit_webhook_mode=mode) as api:
        answer = await api.request("GET", "/version", token=BOB)
        assert answer.status == code
        if code == 500:
            assert answer.body == b'Internal Server Error: "/version": failed to store audit event\n'
    measures = api.server.metrics.audit
    assert measures is not None and measures.errors["webhook"] >= 1
    assert bool(measures.rejected) == (code == 500)


async def test_the_log_in_batches(tmp_path: Path):
    file, log = tmp_path / "policy.yaml", tmp_path / "audit.log"
    file.write_text(json.dumps(policy({"level": "Metadata"}, omitStages=["RequestReceived"])))
    options = {
        "audit_log_mode": "batch", "audit_log_batch_max_size": 3, "audit_log_batch_max_wait_s": 60.0,
        "audit_policy_file": str(file), "audit_log_path": str(log),
    }  # fmt: skip
    async with running(tmp_path / "api", **options) as api:
        for number in range(2):
            await api.request("GET", f"/version?n={number}", token=BOB)
        assert not events(log)
        await api.request("GET", "/version?n=2", token=BOB)
        await until(lambda: len(events(log)) == 3)
        await api.request("GET", "/version?n=3", token=BOB)
        page = (await api.request("GET", "/metrics")).body
        assert b'apiserver_audit_level_total{level="Metadata"} 5' in page
    assert events(log)[3]["requestURI"] == "/version?n=3"  # what is left is written when the server stops


async def test_large_events_lose_their_objects(tmp_path: Path):
    file, log = tmp_path / "policy.yaml", tmp_path / "audit.log"
    file.write_text(json.dumps(policy({"level": "RequestResponse"}, omitStages=["RequestReceived"])))
    options = {
        "audit_log_truncate_enabled": True, "audit_log_truncate_max_event_size": 2000,
        "audit_policy_file": str(file), "audit_log_path": str(log),
    }  # fmt: skip
    async with running(tmp_path / "api", **options) as api:
        await api.create(MAPS, {"metadata": {"name": "a"}, "data": {"k": "x" * 3000}})
        await api.request("GET", "/version?" + "n" * 3000, token=BOB)
        (event,) = events(log)
        assert "requestObject" not in event and "responseObject" not in event
        assert event["annotations"]["audit.k8s.io/truncated"] == "true"
        assert api.server.auditor is not None and api.server.auditor.measures.errors == {"truncate": 1}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mode": "later"}, 'invalid audit log mode later, allowed modes are "batch,blocking,blocking-strict"'),
        (
            {"mode": "batch", "batch_buffer_size": 0},
            "invalid audit batch log buffer size 0, must be a positive number",
        ),
        (
            {"mode": "batch", "batch_throttle_enable": True},
            "invalid audit batch log throttle QPS 0, must be a positive number",
        ),
        (
            {"truncate_enabled": True, "truncate_max_batch_size": 1},
            "invalid audit truncate log max batch size 1, must be greater than max event size (102400)",
        ),
        ({"maxage": -1}, "--audit-log-maxage -1 can't be a negative number"),
    ],
)
async def test_options_that_cannot_be(options: dict[str, Any], told: str):
    named = {f"audit_log_{key}": value for key, value in options.items()}
    with pytest.raises(ValueError) as caught:
        AuditOptions(audit_log_path="-", **named).validate_audit()
    assert str(caught.value) == told


async def test_a_webhook_gets_events_in_batches(tmp_path: Path):
    lists: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        lists.append(await request.json())
        return web.Response(status=500 if len(lists) == 1 else 200)  # the first attempt fails

    file = tmp_path / "policy.yaml"
    file.write_text(json.dumps(policy({"level": "Metadata"}, omitStages=["RequestReceived"])))
    async with serving({"/": take}) as url:
        hook = Hook(lambda spec: None)
        hook.url = url + "/"
        options = {
            "audit_policy_file": str(file), "audit_webhook_config_file": hook.kubeconfig(tmp_path),
            "audit_webhook_batch_max_size": 3, "audit_webhook_initial_backoff_s": 0.01,
        }  # fmt: skip
        async with running(tmp_path / "api", **options) as api:
            for number in range(4):
                await api.request("GET", f"/version?n={number}", token=BOB)
            await until(lambda: len(lists) == 2)
        first, again, rest = lists  # what is left is sent when the server stops
    assert first == again and again["kind"] == "EventList" and len(again["items"]) == 3
    assert [event["requestURI"] for event in rest["items"]] == ["/version?n=3"]
