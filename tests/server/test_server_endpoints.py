"""What is no resource: health, version, metrics, discovery, the index of paths; and limits and the end of it all."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from apis import ADMIN, ALICE, Api, running, until

from fastkube.api.catalog import Catalog, version_rank
from fastkube.server import pki
from fastkube.server.discovery import Discovery
from fastkube.server.options import ServerOptions

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
MAPS = "/api/v1/namespaces/default/configmaps"


# ---------------------------------------------------------------- health


async def test_health(api: Api) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/livez/ping", "/readyz/etcd", "/readyz/shutdown"):
        response = await api.request("GET", path, token="" if path.count("/") == 1 else ADMIN)
        assert (response.status, response.body) == (200, b"ok")
    verbose = await api.request("GET", "/readyz?verbose&exclude=etcd&exclude=nope")
    assert b"[+]ping ok\n" in verbose.body
    assert b"[+]etcd excluded: ok\n" in verbose.body
    assert b'warn: some health checks cannot be excluded: no matches for "nope"\n' in verbose.body
    assert verbose.body.endswith(b"readyz check passed\n")
    assert (await api.request("GET", "/healthz/nope")).status == 404


async def test_a_failing_check_fails_the_whole(api: Api) -> None:
    api.server.health.stopping = True
    response = await api.request("GET", "/readyz")
    assert response.status == 500
    assert b"[-]shutdown failed: reason withheld\n" in response.body
    assert response.body.endswith(b"readyz check failed\n")
    assert (await api.request("GET", "/livez")).status == 200
    one = await api.request("GET", "/readyz/shutdown")
    assert one.body == b"internal server error: process is shutting down\n"


# ---------------------------------------------------------------- discovery


async def test_discovery_of_both_kinds(api: Api) -> None:
    groups = await api.get("/apis")
    assert groups["groups"][1]["name"] == "apps"
    resources = await api.get("/apis/apps/v1")
    deployment = next(entry for entry in resources["resources"] if entry["name"] == "deployments")
    assert deployment["shortNames"] == ["deploy"]
    assert deployment["storageVersionHash"] == "8aSe+NMegvE="
    aggregated = await api.request("GET", "/apis", headers={"Accept": f"{AGGREGATED},application/json"})
    assert aggregated.headers["Content-Type"] == AGGREGATED
    assert aggregated.headers["Vary"] == "Accept"
    etag = aggregated.headers["ETag"]
    again = await api.request("GET", "/apis", headers={"Accept": AGGREGATED, "If-None-Match": etag})
    assert (again.status, again.body) == (304, b"")
    older = await api.request("GET", "/apis", headers={"Accept": AGGREGATED.replace("v=v2", "v=v1")})
    assert older.status == 406


def test_documents_follow_the_catalog() -> None:
    catalog = Catalog.builtin()
    discovery = Discovery(catalog)
    before = discovery.answer("/apis/apps/v1", "", "")
    leases = catalog.get("coordination.k8s.io", "leases")
    assert before is not None
    assert leases is not None
    assert discovery.answer("/apis/coordination.k8s.io", "", "") is not None
    catalog.remove(leases)
    after = discovery.answer("/apis", "", "")
    assert after is not None
    assert b"coordination.k8s.io" not in after.body
    assert discovery.answer("/apis/coordination.k8s.io", "", "") is None


def test_versions_are_ranked_by_stability() -> None:
    versions = ["v1alpha1", "foo", "v1", "v2beta1", "v10", "v1beta2", "v2"]
    assert sorted(versions, key=version_rank, reverse=True) == [
        "v10",
        "v2",
        "v1",
        "v2beta1",
        "v1beta2",
        "v1alpha1",
        "foo",
    ]


async def test_version_and_index(api: Api) -> None:
    assert (await api.get("/version"))["gitVersion"].startswith("v1.36.")
    paths = (await api.get("/"))["paths"]
    assert paths[0] == "/.well-known/openid-configuration"
    assert {"/api/v1", "/apis/apps/v1", "/healthz/ping", "/metrics", "/readyz", "/version"} <= set(paths)


# ---------------------------------------------------------------- metrics


async def test_metrics(api: Api) -> None:
    await api.get(MAPS)
    await api.request("GET", f"{MAPS}/none")
    async with api.watch(f"{MAPS}?watch=1"):
        response = await api.request("GET", "/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
    lines = response.body.decode().splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    common = 'group="",version="v1",resource="configmaps",subresource=""'
    listed = (
        f'apiserver_request_total{{verb="LIST",{common},scope="namespace",dry_run="",component="apiserver",code="200"}}'
    )
    missed = (
        f'apiserver_request_total{{verb="GET",{common},scope="resource",dry_run="",component="apiserver",code="404"}}'
    )
    assert (samples[listed], samples[missed]) == ("1", "1")
    assert samples['apiserver_registered_watchers{group="",version="v1",kind="ConfigMap"}'] == "1"
    assert float(samples["process_resident_memory_bytes"]) > 1e6
    assert samples['apiserver_storage_objects{resource="namespaces"}'] == "4"
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    bucket = 'apiserver_request_duration_seconds_bucket{verb="LIST"'
    assert any(key.startswith(bucket) and 'le="+Inf"' in key for key in samples)
    assert (await api.request("GET", "/metrics", token=ALICE)).status == 403


# ---------------------------------------------------------------- certificates and options


def test_certificates_are_kept_until_they_no_longer_serve(tmp_path: Path) -> None:
    now = time.time()
    first = pki.prepare(tmp_path, ["a", "127.0.0.1"], now)
    assert first.ca_key.stat().st_mode & 0o777 == 0o600
    assert first.server_key.stat().st_mode & 0o777 == 0o600
    authority, serving, admin = (path.read_bytes() for path in (first.ca_cert, first.server_cert, first.admin_cert))
    pki.prepare(tmp_path, ["127.0.0.1", "a"], now)
    assert first.server_cert.read_bytes() == serving
    pki.prepare(tmp_path, ["127.0.0.1", "b"], now)
    changed = first.server_cert.read_bytes()
    assert changed != serving
    assert first.admin_cert.read_bytes() == admin
    pki.prepare(tmp_path, ["127.0.0.1", "b"], now + 300 * 86400)
    assert first.server_cert.read_bytes() != changed, "renewed before it expires"
    assert first.ca_cert.read_bytes() == authority


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"authorization_mode": ("Odd",)}, "authorization-mode"),
        ({"tls_cert_file": "x"}, "tls-cert-file"),
        ({"secure_port": 70000, "cert_dir": "x"}, "secure-port"),
        ({"secure_port": None}, "unix-socket"),
        ({"request_timeout_s": 0.0, "cert_dir": "x"}, "request-timeout"),
        ({}, "cert-dir"),
    ],
)
def test_options_that_cannot_be_served(options: dict, flag: str) -> None:
    with pytest.raises(ValueError, match=flag):
        ServerOptions(**options).validate()


# ---------------------------------------------------------------- the end


async def test_a_stop_lets_requests_finish(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        body = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}}).encode()
        reader, writer = await api.connect()
        writer.write(
            f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admintoken\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        await until(lambda: api.server.running)
        stopping = asyncio.create_task(api.server.stop())
        await asyncio.sleep(0.05)
        writer.write(body)
        answer = await asyncio.wait_for(reader.read(), 30)
        assert answer.startswith(b"HTTP/1.1 201")
        assert b"Connection: close" in answer
        await stopping
        with pytest.raises(OSError):
            await api.connect()
        writer.close()
