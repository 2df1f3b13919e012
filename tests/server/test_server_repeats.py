"""GETs that repeat on a connection: each sees the present state, as if it had been the first."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from apis import ADMIN, ALICE, BOB, Api, running
from customs import CRDS, WIDGETS, define, widget

GROUP = "rbac.authorization.k8s.io"
ROLES = f"/apis/{GROUP}/v1/namespaces/default"
FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
APISERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def binding(role: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "b"},
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": role},
        "subjects": [{"kind": "User", "name": "alice", "apiGroup": GROUP}],
    }


async def codes(api: Api, path: str, token: str, times: int = 3) -> list[int]:
    return [(await api.request("GET", path, token=token)).status for _ in range(times)]


async def test_the_state_and_the_head_are_those_of_now(api: Api) -> None:
    made = [await api.create(MAPS, config_map(f"m{number}", n=str(number))) for number in range(3)]
    first = await api.request("GET", f"{MAPS}/m0", token=ADMIN)
    heads = []
    for number in (0, 1, 2, 0):
        again = await api.request("GET", f"{MAPS}/m{number}", token=ADMIN)
        assert again.json == made[number]
        heads.append({**again.headers, "Content-Length": first.headers["Content-Length"]})
    ids = {head.pop("Audit-Id") for head in heads}
    assert len(ids) == len(heads)
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}", one) for one in ids)
    assert all(set(head) == set(first.headers) - {"Audit-Id"} for head in heads)
    changed = await api.merge(f"{MAPS}/m1", {"data": {"n": "new"}})
    assert await api.get(f"{MAPS}/m1") == changed
    await api.delete(f"{MAPS}/m1")
    assert await codes(api, f"{MAPS}/m1", ADMIN, 1) == [404]
    again = await api.create(MAPS, config_map("m1"))
    assert await api.get(f"{MAPS}/m1") == again


async def test_what_is_no_get_of_an_object_is_answered_as_ever(api: Api) -> None:
    await api.create(MAPS, config_map("m", k="v"))
    assert await codes(api, f"{MAPS}/m", ADMIN) == [200] * 3
    assert (await api.request("HEAD", f"{MAPS}/m")).status == 405
    assert await codes(api, f"{MAPS}/", ADMIN, 1) == [200]
    assert await codes(api, f"{MAPS}/m/status", ADMIN, 1) == [404]
    assert await codes(api, f"{MAPS}/m?resourceVersion=999999999", ADMIN, 1) == [504]
    assert await codes(api, f"{MAPS}/%6d", ADMIN, 1) == [200]
    assert await codes(api, f"{MAPS}/{'m' * 600}", ADMIN, 1) == [404]
    told = await api.request("GET", f"{MAPS}/m", headers={"Audit-Id": "mine"})
    assert told.headers["Audit-Id"] == "mine"
    pretty = await api.request("GET", f"{MAPS}/m", headers={"User-Agent": "curl/8"})
    assert pretty.body.startswith(b"{\n")
    table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    for _ in range(3):
        assert (await api.request("GET", f"{MAPS}/m", headers=table)).json["kind"] == "Table"
    assert (await api.request("GET", f"{MAPS}/m", headers={"Impersonate-User": "alice"})).status == 403
    assert await codes(api, "/api/v1/namespaces/default", ADMIN) == [200] * 3
    assert await codes(api, "/api/v1/namespaces/other", ADMIN) == [404] * 3


async def test_whoever_loses_a_right_is_refused_at_once(api: Api) -> None:
    await api.create(MAPS, config_map("m"))
    await api.create(MAPS, config_map("secret"))
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
    await api.create(f"{ROLES}/roles", {"metadata": {"name": "any"}, "rules": [rule]})
    await api.create(f"{ROLES}/roles", {"metadata": {"name": "one"}, "rules": [rule | {"resourceNames": ["m"]}]})
    await api.create(f"{ROLES}/rolebindings", binding("any"))
    assert await codes(api, f"{MAPS}/m", ALICE) == [200] * 3
    assert await codes(api, f"{MAPS}/m", BOB, 1) == [403]
    await api.delete(f"{ROLES}/rolebindings/b")
    assert await codes(api, f"{MAPS}/m", ALICE) == [403] * 3
    await api.create(f"{ROLES}/rolebindings", binding("one"))
    assert await codes(api, f"{MAPS}/m", ALICE) == [200] * 3
    assert await codes(api, f"{MAPS}/secret", ALICE, 1) == [403]
    await api.merge(f"{ROLES}/roles/one", {"rules": []})
    assert await codes(api, f"{MAPS}/m", ALICE, 1) == [403]


async def test_credentials_that_end_are_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    account = "/api/v1/namespaces/default/serviceaccounts"
    await api.create(account, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}})
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
    await api.create(f"{ROLES}/roles", {"metadata": {"name": "any"}, "rules": [rule]})
    subject = {"kind": "ServiceAccount", "name": "robot", "namespace": "default"}
    await api.create(f"{ROLES}/rolebindings", binding("any") | {"subjects": [subject]})
    await api.create(MAPS, config_map("m"))
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = (await api.create(f"{account}/robot/token", asked))["status"]["token"]
    assert await codes(api, f"{MAPS}/m", token) == [200] * 3
    await api.delete(f"{account}/robot")
    later = api.server.clock.time() + 60
    monkeypatch.setattr(type(api.server.clock), "time", lambda self: later)
    assert await codes(api, f"{MAPS}/m", token, 1) == [401]


async def test_flow_control_that_changes_is_told(api: Api) -> None:
    await api.create(MAPS, config_map("m"))
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
    await api.create(f"{ROLES}/roles", {"metadata": {"name": "any"}, "rules": [rule]})
    await api.create(f"{ROLES}/rolebindings", binding("any"))
    header = "X-Kubernetes-Pf-Flowschema-Uid"
    before = {(await api.request("GET", f"{MAPS}/m", token=ALICE)).headers[header] for _ in range(3)}
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}
    schema = await api.create(
        f"{FLOW}/flowschemas",
        {
            "metadata": {"name": "alice"},
            "spec": {
                "matchingPrecedence": 2,
                "priorityLevelConfiguration": {"name": "workload-high"},
                "rules": [{"subjects": [{"kind": "User", "user": {"name": "alice"}}], "resourceRules": [everything]}],
            },
        },
    )
    after = {(await api.request("GET", f"{MAPS}/m", token=ALICE)).headers[header] for _ in range(3)}
    assert after == {schema["metadata"]["uid"]} != before


async def test_a_kind_that_is_gone_is_not_found(api: Api) -> None:
    await define(api)
    made = await api.create(WIDGETS, widget("w"))
    assert [await api.get(f"{WIDGETS}/w") for _ in range(3)] == [made] * 3
    await api.delete(f"{CRDS}/widgets.example.com")
    for _ in range(1000):  # its objects go first
        if await codes(api, f"{WIDGETS}/w", ADMIN, 1) != [200]:
            break
    assert await codes(api, f"{WIDGETS}/w", ADMIN, 1) == [404]


async def test_a_group_that_another_server_takes_over_is_asked_for_there(api: Api) -> None:
    await define(api)
    await api.create(WIDGETS, widget("w"))
    await api.create(MAPS, config_map("m"))
    assert await codes(api, f"{WIDGETS}/w", ADMIN) == [200] * 3
    spec = {"group": "example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15}
    service = {"service": {"name": "elsewhere", "namespace": "default"}, "insecureSkipTLSVerify": True}
    await api.create(APISERVICES, {"metadata": {"name": "v1.example.com"}, "spec": {**spec, **service}})
    assert await codes(api, f"{WIDGETS}/w", ADMIN) == [503] * 3
    assert await codes(api, f"{MAPS}/m", ADMIN) == [200] * 3
    await api.delete(f"{APISERVICES}/v1.example.com")
    assert await codes(api, f"{WIDGETS}/w", ADMIN) == [200] * 3


async def test_pipelined_requests_are_answered_in_order(api: Api) -> None:
    for number in range(4):
        await api.create(MAPS, config_map(f"m{number}"))
    head = f"HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\n"
    names = [f"m{number % 4}" for number in range(20)]
    sent = "".join(f"GET {MAPS}/{name} {head}\r\n" for name in names)
    sent += f"GET {MAPS}/nothing {head}\r\nGET {MAPS}/m0 {head}Connection: close\r\n\r\n"
    answers = (await api.raw(sent.encode())).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200"] * 20 + [b"404", b"200"]
    bodies = [json.loads(answer.partition(b"\r\n\r\n")[2]) for answer in answers]
    assert [body["metadata"]["name"] for body in bodies[:20]] == names
    assert b"Connection: close" in answers[-1]


async def test_requests_are_counted(api: Api) -> None:
    await api.create(MAPS, config_map("m"))
    assert await codes(api, f"{MAPS}/m", ADMIN, 7) == [200] * 7
    text = (await api.request("GET", "/metrics")).body.decode()
    line = next(one for one in text.splitlines() if 'resource="configmaps"' in one and 'verb="GET"' in one)
    assert line.endswith(" 7")


async def test_every_request_is_audited(tmp_path: Path) -> None:
    policy, log = tmp_path / "policy.yaml", tmp_path / "audit.log"
    policy.write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n")
    async with running(tmp_path, audit_policy_file=str(policy), audit_log_path=str(log)) as api:
        await api.create(MAPS, config_map("m"))
        assert await codes(api, f"{MAPS}/m", ADMIN, 5) == [200] * 5
    events = [json.loads(line) for line in log.read_text().splitlines()]
    done = [one for one in events if one["stage"] == "ResponseComplete" and one["requestURI"] == f"{MAPS}/m"]
    assert len(done) == 5


async def _answer(reader: asyncio.StreamReader) -> tuple[int, Any]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    assert length is not None
    return int(head.split()[1]), json.loads(await reader.readexactly(int(length[1])))


def get(name: str, token: str = ADMIN) -> bytes:
    credentials = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {MAPS}/{name} HTTP/1.1\r\nHost: x\r\n{credentials}\r\n".encode()


async def test_requests_may_come_in_any_pieces(api: Api) -> None:
    made = {name: await api.create(MAPS, config_map(name)) for name in ("a", "b")}
    reader, writer = await api.connect()
    for cut in range(0, len(get("a")), 3):
        for name in ("a", "b", "a"):
            writer.write(get(name))
            assert await _answer(reader) == (200, made[name])
        writer.write(get("b")[:cut])
        await asyncio.sleep(0)
        writer.write(get("b")[cut:] + get("a")[: cut // 2])
        await asyncio.sleep(0)
        writer.write(get("a")[cut // 2 :] + b"\r\n" * (cut % 2))
        assert [await _answer(reader), await _answer(reader)] == [(200, made["b"]), (200, made["a"])]
    writer.close()


async def test_no_other_bytes_are_taken_for_a_request(api: Api) -> None:
    """What begins in one piece and looks like a whole request in the next has the header of both."""
    made = await api.create(MAPS, config_map("a"))
    reader, writer = await api.connect()
    for _ in range(3):
        writer.write(get("a"))
        assert await _answer(reader) == (200, made)
    for _ in range(3):
        writer.write(get("a").replace(b"Host: x\r\n", b"")[:-2] + b"X-More: ")
        await asyncio.sleep(0.02)
        writer.write(get("a", token=""))
        assert await _answer(reader) == (200, made)
    for name in ("a%00", "a?x", "a b", "a/", "..", "a\tb", "%61", ""):
        lines = []
        for before in (2, 0):
            reader_too, writer_too = await api.connect()
            for _ in range(before):
                writer_too.write(get("a"))
                assert await _answer(reader_too) == (200, made)
            writer_too.write(get(name))
            lines.append(await reader_too.readline())
            writer_too.close()
        assert lines[0] == lines[1], name
    for _ in range(2):  # without the credentials that came before
        writer.write(get("a", token=""))
        assert (await _answer(reader))[0] == 403
    writer.close()


async def test_what_cannot_be_read_is_told_by_a_status(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    made = await api.create(MAPS, config_map("a"))
    await api.store.create(b"/registry/configmaps/default/broken", b"\xc1")
    reader, writer = await api.connect()
    for _ in range(3):
        writer.write(get("a"))
        assert await _answer(reader) == (200, made)
        writer.write(get("broken"))
        code, status = await _answer(reader)
        assert (code, status["kind"], status["reason"]) == (500, "Status", "InternalError")
    assert caplog.text.count("Traceback") == 3
    writer.close()
