"""How the endpoint is reached: TLS with client certificates, beside an API server, by members of a cluster, probes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from servers import fastkube_etcd, free_port
from wire import Client

from fastkube._http2 import PREFACE
from fastkube.etcd import messages as m
from fastkube.server import pki
from fastkube.testing import Cluster


def http(url: str, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url + path, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_probes_are_answered_without_grpc(url: str) -> None:
    assert http(url, "/health") == (200, b'{"health":"true","reason":""}')
    assert json.loads(http(url, "/version")[1])["etcdcluster"] == "3.6.0"
    assert http(url, "/v3/kv/range")[0] == 404


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"\xff\xff\xff\x00\x00\x00\x00\x00\x00", b"a frame is too large"),
        (b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\xff", b"the block is cut off"),
        (b"\x00\x00\x01\x00\x00\x00\x00\x00\x01x", b"data on a stream that was not opened"),
        (b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00", b"a WINDOW_UPDATE of nothing"),
    ],
)
def test_a_peer_that_breaks_the_protocol_is_told_how(url: str, sent: bytes, told: bytes) -> None:
    host, port = url.partition("//")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(PREFACE + sent)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert told in answer


async def test_client_certificates_are_needed_where_they_are_asked_for(tmp_path: Path) -> None:
    made = pki.prepare_peers(tmp_path / "pki", ("127.0.0.1",), time.time())
    other = pki.prepare_peers(tmp_path / "other", ("127.0.0.1",), time.time())
    flags = ["--cert-file", made.cert, "--key-file", made.key, "--trusted-ca-file", made.ca_cert, "--client-cert-auth"]
    with fastkube_etcd(tmp_path / "data", *map(str, flags), scheme="https") as url:

        def client(files: pki.PeerPki | None) -> Client:
            cert, key = (files.cert.read_bytes(), files.key.read_bytes()) if files else (None, None)
            return Client(url, grpc.ssl_channel_credentials(made.ca_cert.read_bytes(), key, cert))

        good = client(made)
        await good.put(b"a", b"1")
        assert (await good.range(b"a")).kvs[0].value == b"1"
        for bad in (client(None), client(other)):
            assert (await bad.refused(bad.range(b"a")))[0] == "UNAVAILABLE"
            await bad.channel.close()
        await good.channel.close()


def test_flags_that_cannot_be_are_refused_by_name(tmp_path: Path) -> None:
    for flags, told in (
        (["--listen-client-urls", "127.0.0.1:1"], "listen-client-urls: '127.0.0.1:1' is not a URL"),
        (["--listen-client-urls", "https://127.0.0.1:0"], "needs a certificate and its key"),
        (["--client-cert-auth"], "client certificates need the file of their authority"),
        (["--max-txn-ops", "0"], "max-txn-ops: must be more than 0"),
    ):
        words = [sys.executable, "-m", "fastkube", "etcd", "--data-dir", str(tmp_path), *flags]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, told in done.stderr) == (1, True), done.stderr


async def test_beside_kubernetes_each_has_its_own_keys_and_they_share_revisions(tmp_path: Path) -> None:
    port = free_port()
    with Cluster(nodes=0, etcd_listen=(f"http://127.0.0.1:{port}",)) as cluster:
        client = Client(f"http://127.0.0.1:{port}")
        assert (await client.range(b"\x00", b"\x00")).kvs == []
        put = await client.put(b"/registry/configmaps/default/mine", b"raw")
        assert put.header.revision > 2, "Kubernetes has written"
        made = await asyncio.to_thread(cluster.kubectl, "create", "configmap", "theirs", "-o", "json")
        assert int(json.loads(made)["metadata"]["resourceVersion"]) > put.header.revision
        found = await client.range(b"\x00", b"\x00")
        assert [item.key for item in found.kvs] == [b"/registry/configmaps/default/mine"]
        assert "mine" not in await asyncio.to_thread(cluster.kubectl, "get", "configmaps", "-A")
        deleted = await client.delete(b"\x00", b"\x00")
        assert deleted.deleted == 1
        await client.channel.close()


@contextlib.contextmanager
def three_members(folder: Path) -> Iterator[tuple[list[str], list[subprocess.Popen[str]]]]:
    """The URLs and processes of three `fastkube etcd` that replicate one store."""
    made = pki.prepare_peers(folder / "pki", ("127.0.0.1",), time.time())
    initial = ",".join(f"{name}=https://127.0.0.1:{free_port()}" for name in "abc")
    flags = ["--initial-cluster", initial, "--peer-cert-file", made.cert, "--peer-key-file", made.key]
    flags += ["--peer-trusted-ca-file", made.ca_cert, "--listen-client-urls", "http://127.0.0.1:0"]
    processes = []
    try:
        for name in "abc":
            words = [sys.executable, "-m", "fastkube", "etcd", "--name", name, "--data-dir", folder / name, *flags]
            processes.append(subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True))
        outputs = [process.stdout for process in processes]
        yield [output.readline().split(": ", 1)[1].strip() for output in outputs if output is not None], processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


async def test_every_member_answers_and_they_know_each_other(tmp_path: Path) -> None:
    with three_members(tmp_path) as (urls, processes):
        clients = [Client(url) for url in urls]
        stream = clients[2].watch()
        await stream.create(b"r/", b"r0")
        lease = (await clients[1].grant(60)).id
        put = await clients[0].put(b"r/a", b"1", lease=lease)
        for client in clients:
            assert (await client.range(b"r/a")).kvs[0].mod_revision == put.header.revision
        assert await stream.keys(1) == [(0, b"r/a")]
        hashes = {await hash_of(client, put.header.revision) for client in clients}
        assert len(hashes) == 1
        statuses = [await client.status() for client in clients]
        assert len({status.leader for status in statuses}) == 1
        assert len({status.header.member_id for status in statuses}) == 3
        await clients[0].call("/etcdserverpb.Lease/LeaseRevoke", m.LEASE_ID, m.HEADER_ONLY, id=lease)
        assert await stream.keys(1) == [(1, b"r/a")]
        leads = next(place for place, status in enumerate(statuses) if status.header.member_id == status.leader)
        target = statuses[leads - 1].header.member_id
        path = "/etcdserverpb.Maintenance/MoveLeader"
        await clients[leads].call(path, m.MOVE_LEADER_REQUEST, m.HEADER_ONLY, target_id=target)
        assert (await clients[leads].status()).leader == target
        path = "/etcdserverpb.Cluster/MemberList"
        listed = await clients[0].call(path, m.MEMBER_LIST_REQUEST, m.MEMBERS_RESPONSE, linearizable=True)
        assert sorted(member.name for member in listed.members) == ["a", "b", "c"]
        await told_of_each_other(clients, urls)
        await members_move(clients, listed.members)
        demanding, patient = clients[0].watch(requires_leader=True), clients[0].watch()
        for stream in (demanding, patient):
            await stream.create(b"r/b")
        for process in processes[1:]:
            process.kill()
        left = await clients[0].refused(demanding.read())  # by then a leader's lease is over, too
        late = await clients[0].refused(clients[0].range(b"r/a"))
        assert left == ("UNAVAILABLE", "etcdserver: no leader")
        assert late == ("UNAVAILABLE", "etcdserver: request timed out")
        assert (await clients[0].range(b"r/a", serializable=True)).header.revision > 0
        for client in clients:
            await client.channel.close()


async def told_of_each_other(clients: list[Client], urls: list[str]) -> None:
    """Any member says where clients reach every other: what `etcdctl --cluster` asks."""
    path = "/etcdserverpb.Cluster/MemberList"
    for client in clients:
        async with asyncio.timeout(20):
            while True:
                listed = await client.call(path, m.MEMBER_LIST_REQUEST, m.MEMBERS_RESPONSE, linearizable=True)
                told = {member.name: list(member.client_urls) for member in listed.members}
                if told == {name: [url] for name, url in zip("abc", urls, strict=True)}:
                    break
                await asyncio.sleep(0.05)


async def members_move(clients: list[Client], members: list[m.Member]) -> None:
    """URLs of a member are told through any other, and all know them; it is reached as before."""
    one, other = members[0], members[1]
    urls = [*one.peer_urls, f"https://127.0.0.1:{free_port()}"]
    path = "/etcdserverpb.Cluster/MemberUpdate"
    for client in clients:
        moved = await client.call(path, m.MEMBER_UPDATE_REQUEST, m.MEMBERS_RESPONSE, id=one.id, peer_urls=urls)
        assert [each.peer_urls for each in moved.members if each.id == one.id] == [urls]
        assert [each.id for each in moved.members] == [each.id for each in members]
    for member, wanted, told in (
        (7, urls, ("NOT_FOUND", "etcdserver: member not found")),
        (other.id, urls, ("FAILED_PRECONDITION", "etcdserver: Peer URLs already exists")),
        (other.id, ["nowhere"], ("INVALID_ARGUMENT", "etcdserver: given member URLs are invalid")),
        (other.id, [], ("INVALID_ARGUMENT", "etcdserver: given member URLs are invalid")),
    ):
        call = clients[0].call(path, m.MEMBER_UPDATE_REQUEST, m.MEMBERS_RESPONSE, id=member, peer_urls=wanted)
        assert await clients[0].refused(call) == told
    put = await clients[0].put(b"r/moved")
    for client in clients:
        assert (await client.range(b"r/moved")).kvs[0].mod_revision == put.header.revision


async def hash_of(client: Client, revision: int) -> int:
    path = "/etcdserverpb.Maintenance/HashKV"
    answer = await client.call(path, m.HASH_KV_REQUEST, m.HASH_KV_RESPONSE, revision=revision)
    value: int = answer.hash
    return value
