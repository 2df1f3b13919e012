"""Encryption at rest: what lies on the disk, what is read back, and how keys are exchanged."""

import asyncio
import base64
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest
import yaml
from clusters import Cluster, refused

from fastkube.errors import ApiError
from fastkube.registry.encryption import PREFIX, Encryption
from fastkube.registry.sealing import SealedStore
from fastkube.store import Compare, InvalidRequest, KeyExists, Put, Range, Store, Write, prefix_end

KEY = b"/registry/secrets/default/a"
VALUE = msgpack.packb({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}})
PROVIDERS = ("aesgcm", "aescbc", "secretbox")


def key(name: str, letter: str = "k") -> dict[str, str]:
    return {"name": name, "secret": base64.b64encode(letter.encode() * 32).decode()}


def configuration(*providers: dict[str, Any], resources: tuple[str, ...] = ("secrets",)) -> dict[str, Any]:
    entry = {"resources": list(resources), "providers": list(providers)}
    return {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": [entry]}


async def opened(path: Path, *providers: dict[str, Any], resources: tuple[str, ...] = ("secrets",)) -> SealedStore:
    encryption = Encryption(configuration(*providers, resources=resources))
    return await SealedStore.open_sealed(path / "store", encryption, sync=False)


async def on_disk(path: Path, of: bytes = KEY) -> bytes:
    plain = await Store.open(path / "store", sync=False)
    try:
        item = plain.get(of)
        assert item is not None
        return item.value
    finally:
        await plain.close()


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_value_is_encrypted_on_the_disk_and_nowhere_else(tmp_path: Path, provider: str):
    store = await opened(tmp_path, {provider: {"keys": [key("one")]}})
    seen: list[bytes] = []
    store.subscribe(
        b"/registry/secrets/", b"/registry/secrets0", lambda events, _: seen.extend(e.value for e in events)
    )
    watcher = store.watch(KEY, None)
    revision = await store.create(KEY, VALUE)
    assert seen == [VALUE]
    assert [event.value for event in await anext(watcher)] == [VALUE]
    assert [item.value for item in store.range(b"/registry/secrets/", b"/registry/secrets0").items] == [VALUE]
    with closing(store.scan(b"/registry/secrets/", b"/registry/secrets0")) as items:
        assert [item.value for item in items] == [VALUE]
    assert list(store.values(b"/registry/secrets/", b"/registry/secrets0")) == [(VALUE, revision)]
    await store.update(KEY, VALUE + b"x", revision)
    found = store.get(KEY)
    assert found is not None
    assert found.value == VALUE + b"x"
    await store.close()
    stored = await on_disk(tmp_path)
    assert stored.startswith(PREFIX + f"{provider}:v1:one:".encode())
    assert b"Secret" not in stored


async def test_what_a_write_answers_is_readable_too(tmp_path: Path):
    store = await opened(tmp_path, {"aesgcm": {"keys": [key("one")]}})
    (revision,) = await store.write([Write(KEY, VALUE)])
    with pytest.raises(KeyExists) as taken:
        await store.create(KEY, b"")
    assert taken.value.item.value == VALUE
    unchanged = Compare(KEY, "mod", "=", revision)
    answer = await store.txn([unchanged], [Range(KEY), Put(KEY, b"new")])
    assert answer.responses[0].items[0].value == VALUE
    assert answer.responses[1].prev.value == VALUE
    with pytest.raises(InvalidRequest, match="cannot be compared"):
        await store.txn([Compare(KEY, "value", "=", VALUE)], [])
    assert (await store.delete(KEY)).value == b"new"
    await store.close()


async def test_other_resources_lie_as_they_are(tmp_path: Path):
    names = {
        "secrets": KEY,
        "deployments": b"/registry/apps/deployments/default/a",
        "pods": b"/registry/pods/default/a",
    }
    for resources, sealed in (
        (("secrets",), {"secrets"}),
        (("*.apps",), {"deployments"}),
        (("*.",), {"secrets", "pods"}),
        (("*.*",), {"secrets", "pods", "deployments"}),
    ):
        encryption = Encryption(configuration({"aesgcm": {"keys": [key("one")]}}, resources=resources))
        found = {name for name, place in names.items() if encryption.transformer(*_identity(place)) is not None}
        assert found == sealed
    store = await opened(tmp_path, {"aesgcm": {"keys": [key("one")]}})
    await store.create(names["pods"], VALUE)
    await store.close()
    assert await on_disk(tmp_path, names["pods"]) == VALUE


def _identity(place: bytes) -> tuple[str, str]:
    parts = place.decode().split("/")
    return (parts[2], parts[3]) if parts[2] == "apps" else ("", parts[2])


async def test_keys_are_exchanged_by_writing_again(tmp_path: Path):
    store = await opened(tmp_path, {"identity": {}})
    await store.create(KEY, VALUE)
    assert not store.is_stale(KEY)
    await store.close()
    for providers in (
        [{"aescbc": {"keys": [key("one")]}}, {"identity": {}}],
        [{"aesgcm": {"keys": [key("two", "z"), key("three")]}}, {"aescbc": {"keys": [key("one")]}}],
        [{"identity": {}}, {"aesgcm": {"keys": [key("two", "z")]}}],
    ):
        store = await opened(tmp_path, *providers)
        found = store.get(KEY)
        assert found is not None
        assert found.value == VALUE
        assert store.is_stale(KEY)
        await store.update(KEY, VALUE, found.mod_revision)
        assert not store.is_stale(KEY)
        await store.close()
    assert await on_disk(tmp_path) == VALUE


async def test_a_secret_that_is_written_again_unchanged_gets_the_new_key(cluster: Cluster):
    await cluster.create("secrets", {"metadata": {"name": "a"}, "data": {"k": "dg=="}})
    before = cluster.get("secrets", "a")
    assert await cluster.update("secrets", before) == before
    cluster.store.is_stale = lambda of: of == KEY  # type: ignore[method-assign]
    after = await cluster.update("secrets", before)
    assert after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
    assert after["data"] == before["data"]


async def test_a_value_without_its_key_is_told_and_never_guessed(tmp_path: Path):
    store = await opened(tmp_path, {"aesgcm": {"keys": [key("one")]}})
    await store.create(KEY, VALUE)
    await store.close()
    for provider in ({"aesgcm": {"keys": [key("other")]}}, {"identity": {}}):
        store = await opened(tmp_path, provider)
        async with refused(500, "InternalError", "no matching prefix found"):
            store.get(KEY)
        await store.close()
    store = await opened(tmp_path, {"aesgcm": {"keys": [key("one", "w")]}})
    async with refused(500, "InternalError", "message authentication failed"):
        store.get(KEY)
    await store.close()


async def test_a_value_that_was_moved_to_another_key_is_not_taken(tmp_path: Path):
    store = await opened(tmp_path, {"aesgcm": {"keys": [key("one")]}})
    await store.create(KEY, VALUE)
    await store.close()
    moved = await on_disk(tmp_path)
    plain = await Store.open(tmp_path / "store", sync=False)
    await plain.create(b"/registry/secrets/default/b", moved)
    await plain.close()
    store = await opened(tmp_path, {"aesgcm": {"keys": [key("one")]}})
    with pytest.raises(ApiError, match="message authentication failed"):
        store.get(b"/registry/secrets/default/b")
    await store.close()


async def test_many_writes_at_once_keep_their_order(tmp_path: Path):
    store = await opened(tmp_path, {"aesgcm": {"keys": [key("one")]}})
    places = [f"/registry/secrets/default/s{number}".encode() for number in range(50)]
    revisions = await asyncio.gather(*(store.create(place, place) for place in places))
    assert sorted(revisions) == revisions
    prefix = b"/registry/secrets/"
    assert {item.key for item in store.range(prefix, prefix_end(prefix)).items if item.key == item.value} == set(places)
    await store.close()


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({}, "expected an EncryptionConfiguration of apiserver.config.k8s.io/v1"),
        (configuration(resources=()), "resources[0].resources: Required value"),
        (configuration(), "resources[0].providers: Required value"),
        (
            configuration({"kms": {"name": "x"}}),
            "resources[0].providers[0].kms: key management services are not supported",
        ),
        (configuration({"odd": {}}), "resources[0].providers[0]: unknown provider 'odd'"),
        (configuration({"aesgcm": {}, "identity": {}}), "exactly one of aesgcm, aescbc, secretbox and identity"),
        (configuration({"aesgcm": {"keys": []}}), "providers[0].aesgcm.keys: Required value"),
        (configuration({"aescbc": {"keys": [{"name": "a", "secret": "eA=="}]}}), "got 1, expected one of [16, 24, 32]"),
        (
            configuration({"aescbc": {"keys": [{"name": "a", "secret": "%"}]}}),
            "REDACTED: secret must be base64 encoded",
        ),
        (configuration({"aescbc": {"keys": [{"secret": "eA=="}]}}), "keys[0].name: Required value"),
        (configuration({"identity": {}}, resources=("a*",)), "resources[0].resources[0]: Invalid value: 'a*'"),
    ],
)
def test_a_bad_configuration_is_refused_by_name(tmp_path: Path, document: dict, problem: str):
    file = tmp_path / "encryption.yaml"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(ValueError, match="encryption-provider-config: ") as caught:
        Encryption.load(str(file))
    assert problem in str(caught.value)
