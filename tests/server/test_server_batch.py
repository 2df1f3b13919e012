"""Many writes in one request: each with its own result, its own rights and its own admission."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import msgpack
import pytest
from apis import ADMIN, ALICE, Api

from fastkube.client import Client
from fastkube.errors import ApiError

BATCH = "/fastkube/v1/batch"
MAPS = "/api/v1/namespaces/default/configmaps"
MSGPACK = "application/msgpack"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def write(method: str, target: str, obj: Any = None, media: str = MSGPACK, brief: bool = False) -> list[Any]:
    return [method, target, media, b"" if obj is None else msgpack.packb(obj), brief]


async def send(api: Api, writes: Any, token: str = ADMIN, **headers: str) -> Any:
    sent = {"Content-Type": MSGPACK, **headers}
    return await api.request("POST", BATCH, msgpack.packb(writes), token=token, headers=sent)


async def results(api: Api, writes: Any, token: str = ADMIN) -> list[tuple[int, Any, list[str]]]:
    response = await send(api, writes, token)
    assert response.status == 200, response.body
    return [
        (code, msgpack.unpackb(body) if body else None, told) for code, body, told in msgpack.unpackb(response.body)
    ]


async def test_each_write_has_its_own_result(api: Api) -> None:
    await api.create(MAPS, config_map("there", k="old"))
    patch = ["PATCH", f"{MAPS}/there", "application/merge-patch+json", b'{"data":{"k":"new"}}', False]
    found = await results(
        api,
        [
            write("POST", MAPS, config_map("a")),
            write("POST", MAPS, config_map("there")),
            write("POST", MAPS, {**config_map("b"), "odd": 1}),
            write("POST", MAPS, config_map("B!")),
            patch,
            write("DELETE", f"{MAPS}/nope"),
            write("POST", f"{MAPS}?dryRun=All", config_map("dry"), brief=True),
        ],
    )
    assert [code for code, _, _ in found] == [201, 409, 201, 422, 200, 404, 201]
    assert found[0][1]["metadata"]["resourceVersion"]
    assert found[1][1]["reason"] == "AlreadyExists"
    assert found[2][2] == ['unknown field "odd"']
    assert found[3][1]["details"]["causes"][0]["field"] == "metadata.name"
    assert found[4][1]["data"] == {"k": "new"}
    assert found[6][1] is None
    names = {item["metadata"]["name"] for item in (await api.get(MAPS))["items"]}
    assert {"a", "b", "there"} <= names
    assert "dry" not in names


async def test_deletes_answer_as_they_would_alone(api: Api) -> None:
    for name in ("a", "b", "c"):
        await api.create(MAPS, config_map(name))
    body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
    found = await results(api, [write("DELETE", f"{MAPS}/{name}", body) for name in ("a", "b", "c", "a")])
    assert [code for code, _, _ in found] == [200, 200, 200, 404]
    assert found[0][1]["details"]["name"] == "a"
    names = {item["metadata"]["name"] for item in (await api.get(MAPS))["items"]}
    assert not names & {"a", "b", "c"}


async def test_writes_are_those_of_the_user(api: Api) -> None:
    found = await results(api, [write("POST", MAPS, config_map("a")), write("DELETE", f"{MAPS}/x")], ALICE)
    assert [(code, told["reason"]) for code, told, _ in found] == [(403, "Forbidden")] * 2
    assert (await send(api, [], token="")).status == 403
    assert (await send(api, [], token="wrong")).status == 401
    impersonated = await send(api, [write("POST", MAPS, config_map("a"))], **{"Impersonate-User": "alice"})
    assert msgpack.unpackb(impersonated.body)[0][0] == 403


@pytest.mark.parametrize(
    ("target", "code"),
    [("/healthz", 405), (f"{MAPS}/a/status", 404), ("/api/v1/namespaces/default/pods/a/exec", 405), (BATCH, 405)],
)
async def test_only_resources_are_written(api: Api, target: str, code: int) -> None:
    assert [found[0] for found in await results(api, [write("POST", target, {})])] == [code]


@pytest.mark.parametrize(
    "writes", [{}, [1], [["POST", MAPS, MSGPACK, "text", False]], [write("GET", MAPS)], [write("POST", MAPS)] * 1025]
)
async def test_what_is_no_batch(api: Api, writes: Any) -> None:
    response = await send(api, writes)
    assert (response.status, response.json["reason"]) == (400, "BadRequest")


async def test_methods_and_formats_of_the_batch_itself(api: Api) -> None:
    assert (await api.request("GET", BATCH)).status == 405
    assert (await api.request("POST", BATCH, b"[]")).status == 415
    assert (await api.request("POST", BATCH, b"\xc1", headers={"Content-Type": MSGPACK})).status == 400


async def test_the_client_joins_what_is_written_at_once(api: Api) -> None:
    async with Client(api.url, token=ADMIN, batch=True) as client:
        outcomes = await asyncio.gather(
            *(client.create("v1/configmaps", config_map(f"m{n % 90}"), "default") for n in range(100)),
            return_exceptions=True,
        )
        made = [one["metadata"]["name"] for one in outcomes if isinstance(one, dict)]
        refused = [one for one in outcomes if isinstance(one, ApiError)]
        assert sorted(made) == sorted({f"m{n}" for n in range(90)})
        assert [one.reason for one in refused] == ["AlreadyExists"] * 10
        assert await client.delete("v1/configmaps", "m1", "default", brief=True) is not None
        metrics = (await api.request("GET", "/metrics")).body.decode()
        assert 'resource="configmaps"' in metrics
        assert not client.busy


async def test_the_client_does_without_where_there_is_no_batch(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastkube.client.client.BATCH_PATH", "/nope")
    async with Client(api.url, token=ADMIN, batch=True) as client:
        for _ in range(2):
            names = [f"alone-{n}" for n in range(20)]
            await asyncio.gather(*(client.create("v1/configmaps", config_map(name), "default") for name in names))
            await asyncio.gather(*(client.delete("v1/configmaps", name, "default") for name in names))


async def tell_of_each(client: Client, names: list[str]) -> list[ApiError | None]:
    """What creates that nobody awaits come to, in the order of the names."""
    told: dict[int, ApiError | None] = {}
    all_told = asyncio.Event()

    def answered(at: int, error: ApiError | None) -> None:
        assert at not in told
        told[at] = error
        if len(told) == len(names):
            all_told.set()

    for at, name in enumerate(names):
        client.create_nowait("v1/configmaps", config_map(name), "default", answered=partial(answered, at))
    await asyncio.wait_for(all_told.wait(), 20)
    return [told[at] for at in range(len(names))]


@pytest.mark.parametrize("way", ["together", "alone", "no batch"])
async def test_each_create_that_nobody_awaits_is_told_of(api: Api, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    names = [f"{way.replace(' ', '-')}-{n % 20}" for n in range(25)]
    if way == "no batch":
        monkeypatch.setattr("fastkube.client.client.BATCH_PATH", "/nope")
    async with Client(api.url, token=ADMIN, batch=way != "alone") as client:
        refused = [error for error in await tell_of_each(client, names) if error is not None]
        assert [(error.code, error.reason) for error in refused] == [(409, "AlreadyExists")] * 5
        assert set(names) == {
            name
            for obj in (await client.list("v1/configmaps", "default"))["items"]
            if (name := obj["metadata"]["name"]).startswith(way.replace(" ", "-"))
        }


async def test_creates_that_nobody_awaits_are_told_of_a_server_that_is_gone(api: Api) -> None:
    client = Client("http://127.0.0.1:1", token=ADMIN, batch=True)
    told = await tell_of_each(client, ["a", "b"])
    assert [error.code for error in told if error is not None] == [503, 503]
    await client.close()


# ---------------------------------------------------------------- writes that repeat

_ROUNDS = 6
_ONES_OWN = ("uid", "resourceVersion", "creationTimestamp", "time", "lastTransitionTime", "namespace")
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


def pod(name: str) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": "i:1"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def event(name: str) -> dict[str, Any]:
    about = {"kind": "Pod", "name": f"of-{name}", "apiVersion": "v1"}
    told = {"reason": "Scheduled", "note": f"assigned {name}", "type": "Normal", "action": "Binding"}
    reporting = {"reportingController": "me", "reportingInstance": "me-1", "eventTime": "2026-01-02T03:04:05.000006Z"}
    kind = {"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name}}
    return {**kind, **told, **reporting, "regarding": about}


def status(number: int) -> dict[str, Any]:
    address = f"10.0.0.{number}"
    return {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}


def bound(name: str) -> dict[str, Any]:
    metadata, target = {"name": name}, {"kind": "Node", "name": f"node-{name}"}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}


REPEATED: dict[str, tuple[str, str, str, str, Any]] = {
    "creates": ("POST", "/api/v1/namespaces/{ns}/configmaps", "", MSGPACK, lambda n: config_map(f"o-{n}", k=f"v{n}")),
    "creates of Pods": ("POST", "/api/v1/namespaces/{ns}/pods", "", MSGPACK, lambda n: pod(f"o-{n}")),
    "creates of Events": (
        "POST",
        "/apis/events.k8s.io/v1/namespaces/{ns}/events",
        "",
        MSGPACK,
        lambda n: event(f"o-{n}"),
    ),
    "merge patches": (
        "PATCH",
        "/api/v1/namespaces/{ns}/pods",
        "/o-{n}",
        "application/merge-patch+json",
        lambda n: {"metadata": {"annotations": {"a": f"v{n}"}}},
    ),
    "patches of the status": ("PATCH", "/api/v1/namespaces/{ns}/pods", "/o-{n}/status", STRATEGIC, status),
    "applies": (
        "PATCH",
        "/api/v1/namespaces/{ns}/configmaps",
        "/o-{n}?fieldManager=me&force=true",
        APPLY,
        lambda n: config_map(f"o-{n}", k=f"v{n}"),
    ),
    "bindings": ("POST", "/api/v1/namespaces/{ns}/pods", "/o-{n}/binding", MSGPACK, lambda n: bound(f"o-{n}")),
}


def alike(told: Any) -> Any:
    """Without what is every object's own."""
    if isinstance(told, dict):
        return {key: alike(value) for key, value in told.items() if key not in _ONES_OWN}
    return [alike(one) for one in told] if isinstance(told, list) else told


def packed(body: dict[str, Any], media: str, namespace: str) -> bytes:
    """An Event is where its object is."""
    if "regarding" in body:
        body["regarding"]["namespace"] = namespace
    return msgpack.packb(body) if media == MSGPACK else json.dumps(body).encode()


@pytest.mark.parametrize("what", REPEATED)
async def test_what_repeats_comes_to_what_it_would_alone(api: Api, what: str) -> None:
    method, collection, rest, media, body_of = REPEATED[what]
    await api.create("/api/v1/namespaces", {"metadata": {"name": "alone"}})
    path = {namespace: collection.format(ns=namespace) for namespace in ("default", "alone")}
    if rest and what != "applies":
        for namespace in path:
            for number in range(2 * _ROUNDS):
                await api.create(path[namespace], pod(f"o-{number}"))
    for number in range(0, 2 * _ROUNDS, 2):
        writes, alone = [], []
        for n in (number, number + 1):
            default, single = (packed(body_of(n), media, namespace) for namespace in path)
            writes.append([method, path["default"] + rest.format(n=n), media, default, False])
            headers = {"Content-Type": media, "Accept": MSGPACK}
            alone.append(await api.request(method, path["alone"] + rest.format(n=n), single, headers=headers))
        found = await results(api, writes)
        assert [(code, alike(told)) for code, told, _ in found] == [
            (answer.status, alike(msgpack.unpackb(answer.body))) for answer in alone
        ]
    batched, single = [(await api.get(path[namespace]))["items"] for namespace in ("default", "alone")]
    assert alike(batched) == alike(single)
    assert len(batched) == 2 * _ROUNDS
    if what == "bindings":
        assert {obj["spec"]["nodeName"] for obj in batched} == {f"node-o-{n}" for n in range(2 * _ROUNDS)}
    assert {obj["metadata"]["namespace"] for obj in batched} == {"default"}


async def test_repeated_writes_that_fail_say_why(api: Api) -> None:
    for number in range(_ROUNDS):
        assert [found[0] for found in await results(api, [write("POST", MAPS, config_map(f"m-{number}"))])] == [201]
    pods = "/api/v1/namespaces/default/pods"
    for number in range(_ROUNDS):
        await api.create(pods, pod(f"p-{number}"))
        await results(api, [write("POST", f"{pods}/p-{number}/binding", bound(f"p-{number}"))])
    await api.create(pods, pod("free"))
    found = await results(
        api,
        [
            write("POST", MAPS, config_map("m-1")),
            write("POST", MAPS, config_map("fine"), brief=True),
            write("POST", MAPS, config_map("twice")),
            write("POST", MAPS, config_map("twice")),
            write("POST", MAPS, config_map("Not-A-Name")),
            write("POST", MAPS, {**config_map("odd"), "odd": 1}),
            write("POST", f"{pods}/p-1/binding", bound("p-1")),
            write("POST", f"{pods}/nobody/binding", bound("nobody")),
            write("POST", f"{pods}/free/binding", bound("p-2")),
            write("POST", f"{pods}/free/binding", bound("free"), brief=True),
        ],
    )
    codes = [code for code, _, _ in found]
    assert codes[:2] == [409, 201]
    assert found[1][1] is None
    assert sorted(codes[2:4]) == [201, 409]
    assert codes[4:] == [422, 201, 409, 404, 400, 201]
    assert found[5][2] == ['unknown field "odd"']
    assert (await api.get(f"{pods}/free"))["spec"]["nodeName"] == "node-free"


async def test_a_right_that_is_taken_away_ends_what_repeats(api: Api) -> None:
    group = "rbac.authorization.k8s.io"
    roles = f"/apis/{group}/v1/namespaces/default"
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}
    await api.create(f"{roles}/roles", {"metadata": {"name": "maker"}, "rules": [rule]})
    subject = {"kind": "User", "name": "alice", "apiGroup": group}
    role = {"roleRef": {"apiGroup": group, "kind": "Role", "name": "maker"}, "subjects": [subject]}
    await api.create(f"{roles}/rolebindings", {"metadata": {"name": "maker"}, **role})
    for number in range(_ROUNDS):
        made = [write("POST", MAPS, config_map(f"m-{number}-{n}"), brief=True) for n in range(2)]
        assert [code for code, _, _ in await results(api, made, ALICE)] == [201, 201]
    assert (await api.request("DELETE", f"{roles}/rolebindings/maker")).status == 200
    assert [code for code, _, _ in await results(api, [write("POST", MAPS, config_map("late"))], ALICE)] == [403]
    assert [code for code, _, _ in await results(api, [write("POST", MAPS, config_map("late"))])] == [201]


async def test_a_quota_counts_what_repeats(api: Api) -> None:
    for number in range(_ROUNDS):
        assert [found[0] for found in await results(api, [write("POST", MAPS, config_map(f"m-{number}"))])] == [201]
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"count/configmaps": str(_ROUNDS + 1)}}}
    made = await api.create("/api/v1/namespaces/default/resourcequotas", quota)
    used = {"status": {"hard": quota["spec"]["hard"], "used": {"count/configmaps": str(_ROUNDS)}}}
    path = "/api/v1/namespaces/default/resourcequotas/few/status"
    assert (await api.request("PUT", path, {**made, **used})).status == 200
    writes = [write("POST", MAPS, config_map(f"n-{number}")) for number in range(3)]
    assert sorted(code for code, _, _ in await results(api, writes)) == [201, 403, 403]


# ---------------------------------------------------------------- renewals of leases

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
_TIME = "2026-01-02T03:04:05.%06dZ"


def lease(name: str, number: int, version: str = "", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", **({"resourceVersion": version} if version else {})}
    filled = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": _TIME % number, **spec}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": filled}


def renewal(name: str, number: int, version: str, brief: bool = False, **spec: Any) -> list[Any]:
    return write("PUT", f"{LEASES}/{name}", lease(name, number, version, **spec), brief=brief)


async def test_renewals_are_what_updates_of_their_own_would_be(api: Api) -> None:
    manager = {"User-Agent": "kubelet/1"}
    for name in ("batched", "alone"):
        await api.request("POST", LEASES, lease(name, 1), headers=manager)
    before = {name: await api.get(f"{LEASES}/{name}") for name in ("batched", "alone")}
    versions = {name: made["metadata"]["resourceVersion"] for name, made in before.items()}
    writes = [renewal("batched", 2, versions["batched"])]
    sent = await send(api, writes, **manager)
    ((code, body, told),) = msgpack.unpackb(sent.body)
    assert (code, told) == (200, [])
    put = await api.request("PUT", f"{LEASES}/alone", lease("alone", 2, versions["alone"]), headers=manager)
    assert put.status == 200
    batched, alone = await api.get(f"{LEASES}/batched"), await api.get(f"{LEASES}/alone")
    assert msgpack.unpackb(body) == batched
    assert batched["spec"]["renewTime"] == _TIME % 2
    assert int(batched["metadata"]["resourceVersion"]) > int(versions["batched"])

    def common(obj: dict[str, Any]) -> dict[str, Any]:
        own = ("name", "uid", "resourceVersion", "creationTimestamp", "managedFields")
        entries = [{**entry, "time": ""} for entry in obj["metadata"]["managedFields"]]
        metadata = {key: value for key, value in obj["metadata"].items() if key not in own}
        return {
            **obj,
            "metadata": {**metadata, "managedFields": entries},
            "spec": {**obj["spec"], "holderIdentity": ""},
        }

    assert common(batched) == common(alone)
    assert batched["metadata"]["uid"] == before["batched"]["metadata"]["uid"]


async def test_only_plain_renewals_are_taken_as_such(api: Api) -> None:
    made = {}
    for name in "abcdefgh":
        found = await results(api, [write("POST", LEASES, lease(name, 1))])
        made[name] = found[0][1]["metadata"]["resourceVersion"]
    labelled = lease("d", 2, made["d"])
    labelled["metadata"]["labels"] = {"a": "b"}
    found = await results(
        api,
        [
            renewal("a", 2, made["a"]),
            renewal("b", 2, str(int(made["b"]) - 1)),
            renewal("c", 2, made["c"], leaseDurationSeconds=0),
            write("PUT", f"{LEASES}/d", labelled),
            renewal("e", 2, ""),
            renewal("f", 2, made["f"], holderIdentity="other"),
            renewal("g", 2, made["g"], renewTime="soon"),
            renewal("h", 2, made["h"], odd=1),
            renewal("nothing", 2, made["a"]),
            renewal("b", 3, made["b"], brief=True),
            write("PUT", f"{LEASES}/b", lease("a", 2, made["b"])),
            write("PUT", f"{LEASES}/{'x' * 600}", lease("x" * 600, 2, made["a"])),
        ],
    )
    assert [code for code, _, _ in found] == [200, 409, 422, 200, 422, 200, 400, 200, 201, 200, 400, 422]
    assert found[2][1]["details"]["causes"][0]["field"] == "spec.leaseDurationSeconds"
    assert found[3][1]["metadata"]["labels"] == {"a": "b"}
    assert found[5][1]["spec"]["holderIdentity"] == "other"
    assert found[7][2] == ['unknown field "spec.odd"']
    assert found[9][1] is None
    assert (await api.get(f"{LEASES}/b"))["spec"]["renewTime"] == _TIME % 3


async def test_a_lease_renewed_twice_at_once_is_renewed_once(api: Api) -> None:
    ((_, made, _),) = await results(api, [write("POST", LEASES, lease("a", 1))])
    version = made["metadata"]["resourceVersion"]
    found = await results(api, [renewal("a", 2, version), renewal("a", 3, version)])
    codes = [code for code, _, _ in found]
    assert sorted(codes) == [200, 409]
    assert (await api.get(f"{LEASES}/a"))["spec"]["renewTime"] == _TIME % (2 + codes.index(200))


async def test_who_else_manages_a_lease_is_remembered(api: Api) -> None:
    await results(api, [write("POST", LEASES, lease("a", 1))])
    other = {"User-Agent": "other/1", "Content-Type": "application/merge-patch+json"}
    body = {"spec": {"renewTime": _TIME % 2}}
    touched = (await api.request("PATCH", f"{LEASES}/a", body, headers=other)).json
    owners = {entry["manager"] for entry in touched["metadata"]["managedFields"]}
    assert len(owners) == 2
    ((code, now, _),) = await results(api, [renewal("a", 3, touched["metadata"]["resourceVersion"])])
    assert code == 200
    owned = {
        entry["manager"]: "f:renewTime" in entry["fieldsV1"]["f:spec"] for entry in now["metadata"]["managedFields"]
    }
    assert list(owned.values()) == [True]


async def test_renewals_need_the_right_to_update(api: Api) -> None:
    ((_, made, _),) = await results(api, [write("POST", LEASES, lease("a", 1))])
    ((code, told, _),) = await results(api, [renewal("a", 2, made["metadata"]["resourceVersion"])], ALICE)
    assert (code, told["reason"]) == (403, "Forbidden")


async def test_watchers_see_every_renewal(api: Api) -> None:
    names = [f"node-{number}" for number in range(300)]
    made = [entry[1] for entry in await results(api, [write("POST", LEASES, lease(name, 1)) for name in names])]
    last = max(int(one["metadata"]["resourceVersion"]) for one in made)
    async with api.watch(f"{LEASES}?watch=true&resourceVersion={last}") as events:
        writes = [
            renewal(name, 2, one["metadata"]["resourceVersion"], brief=True)
            for name, one in zip(names, made, strict=True)
        ]
        assert {code for code, _, _ in await results(api, writes)} == {200}
        seen = await events.take(len(names))
    assert {event["type"] for event in seen} == {"MODIFIED"}
    assert sorted(event["object"]["metadata"]["name"] for event in seen) == sorted(names)
    revisions = [int(event["object"]["metadata"]["resourceVersion"]) for event in seen]
    assert revisions == sorted(set(revisions))
