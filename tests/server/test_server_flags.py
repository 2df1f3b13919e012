"""The flags of kube-apiserver: each is known, and what some of them ask for."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import pytest
from apis import ADMIN, ALICE, running, until
from click.testing import CliRunner

from fastkube.cli import main
from fastkube.server import pki

POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
PODS = "/api/v1/namespaces/default/pods"


def test_every_flag_of_kube_apiserver_is_known() -> None:
    upstream = set((Path(__file__).parent / "kube_apiserver_flags.txt").read_text().split())
    command = main.get_command(click.Context(main), "apiserver")
    assert command is not None
    ours = {flag for parameter in command.params if isinstance(parameter, click.Option) for flag in parameter.opts}
    assert upstream - ours == {"--help"} - ours


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--tracing-config-file=t.yaml",), "tracing-config-file: t.yaml is not supported; what is: None"),
        (("--allow-privileged=false",), "allow-privileged: false is not supported; what is: true"),
        (("--emulated-version=1.35",), "emulated-version: 1.35 is not supported"),
        (("--goaway-chance=0.5",), "goaway-chance: 0.5 is not supported; what is: 0 to 0.02"),
        (("--storage-backend=etcd2",), "storage-backend: etcd2 is not supported"),
        (("--admission-control=LimitRanger", "--enable-admission-plugins=NodeRestriction"), "mutually exclusive"),
        (("--enable-admission-plugins=PodNodeSelector",), "PodNodeSelector: not supported"),
        (("--enable-admission-plugins=EventRateLimit",), "EventRateLimit: limits must be given"),
        (("--tls-min-version=VersionTLS9",), 'unknown tls version "VersionTLS9"'),
        (("--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA",), "TLS_RSA_WITH_RC4_128_SHA not supported or doesn't exist"),
        (("--tls-sni-cert-key=a.crt",), "expected comma separated certificate and key file paths"),
    ],
)
def test_what_is_not_there_is_refused_by_name(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    result = CliRunner().invoke(main, ["apiserver", f"--data-dir={tmp_path}", "--secure-port=0", *words])
    assert result.exit_code == 1
    assert told in result.output


def test_version() -> None:
    result = CliRunner().invoke(main, ["apiserver", "--version"])
    assert (result.exit_code, result.output) == (0, "Kubernetes v1.36.2\n")


async def test_tolerations_and_times(tmp_path: Path) -> None:
    options = {"default_not_ready_toleration_seconds": 11, "default_unreachable_toleration_seconds": 0}
    async with running(tmp_path, **options) as api:
        pod = await api.create(PODS, POD)
        told = {each["key"]: each["tolerationSeconds"] for each in pod["spec"]["tolerations"]}
        assert told == {"node.kubernetes.io/not-ready": 11, "node.kubernetes.io/unreachable": 0}


async def test_metrics_that_are_disabled_are_left_out(tmp_path: Path) -> None:
    async with running(tmp_path, disabled_metrics=("apiserver_open_connections",)) as api:
        page = (await api.request("GET", "/metrics")).body
        assert b"apiserver_open_connections" not in page
        assert b"apiserver_current_inflight_requests{" in page


@pytest.mark.parametrize(
    ("plugin", "path", "body", "told"),
    [
        ("AlwaysDeny", PODS, POD, 'pods "p" is forbidden: admission control is denying all modifications'),
        (
            "DenyServiceExternalIPs",
            "/api/v1/namespaces/default/services",
            {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}], "externalIPs": ["198.51.100.1"]}},
            'services "s" is forbidden: Use of external IPs is denied by admission control',
        ),
        (
            "LimitPodHardAntiAffinityTopology",
            PODS,
            {
                "metadata": {"name": "p"},
                "spec": {
                    **POD["spec"],
                    "affinity": {
                        "podAntiAffinity": {
                            "requiredDuringSchedulingIgnoredDuringExecution": [
                                {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}
                            ]
                        }
                    },
                },
            },
            'pods "p" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only '
            "key kubernetes.io/hostname is allowed",
        ),
    ],
)
async def test_plugins_that_refuse(tmp_path: Path, plugin: str, path: str, body: Any, told: str) -> None:
    async with running(tmp_path, enable_admission_plugins=(plugin,)) as api:
        answer = await api.request("POST", path, body)
        assert (answer.status, answer.json["message"]) == (403, told)


async def test_plugins_that_fill_in(tmp_path: Path) -> None:
    enabled = ("AlwaysPullImages", "ExtendedResourceToleration")
    async with running(tmp_path, enable_admission_plugins=enabled) as api:
        resources = {"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "1"}}
        container = {"name": "c", "image": "i:1", "imagePullPolicy": "Never", "resources": resources}
        pod = await api.create(PODS, {"metadata": {"name": "p"}, "spec": {"containers": [container]}})
        assert pod["spec"]["containers"][0]["imagePullPolicy"] == "Always"
        wanted = {"key": "example.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        assert wanted in pod["spec"]["tolerations"]


async def test_only_the_plugins_of_admission_control_run(tmp_path: Path) -> None:
    async with running(tmp_path, admission_control=("NamespaceLifecycle",), disable_admission_plugins=()) as api:
        pod = await api.create(PODS, POD)
        assert "tolerations" not in pod["spec"]


async def test_owners_are_set_by_who_may(tmp_path: Path) -> None:
    rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "update", "patch"]},
    ]
    name = {"metadata": {"name": "dev"}}
    async with running(tmp_path, enable_admission_plugins=("OwnerReferencesPermissionEnforcement",)) as api:
        await api.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", {**name, "rules": rules})
        binding = {
            **name,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "dev"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}],
        }
        await api.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
        maps = "/api/v1/namespaces/default/configmaps"
        owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}
        await api.create(maps, {"metadata": {"name": "a", "ownerReferences": [owner]}}, token=ALICE)
        blocking = {**owner, "blockOwnerDeletion": True}
        body = {"metadata": {"name": "b", "ownerReferences": [blocking]}}
        answer = await api.request("POST", maps, body, token=ALICE)
        assert answer.json["message"] == (
            'configmaps "b" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you '
            "can't set finalizers on: , <nil>"
        )
        body = {"metadata": {"ownerReferences": []}}
        headers = {"Content-Type": "application/merge-patch+json"}
        answer = await api.request("PATCH", f"{maps}/a", body, token=ALICE, headers=headers)
        assert answer.json["message"] == (
            'configmaps "a" is forbidden: cannot set an ownerRef on a resource you can\'t delete: , <nil>'
        )


# ---------------------------------------------------------------- TLS


def _certificate(directory: Path, name: str) -> tuple[str, str]:
    made = pki.prepare(directory, [name], 1_800_000_000.0)
    return str(made.server_cert), str(made.server_key)


async def _served(url: str, name: str, **settings: Any) -> tuple[str, list[str]]:
    """The TLS version, and the host names of the certificate that the server shows to who asks for `name`."""
    from cryptography import x509

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for key, value in settings.items():
        setattr(context, key, value)
    host, _, port = url.removeprefix("https://").rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=name)
    shown = writer.get_extra_info("ssl_object")
    certificate = x509.load_der_x509_certificate(shown.getpeercert(True))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    writer.close()
    return shown.version(), names.get_values_for_type(x509.DNSName)


async def test_certificates_by_server_name(tmp_path: Path) -> None:
    cert, key = _certificate(tmp_path / "a", "a.example.com")
    wild_cert, wild_key = _certificate(tmp_path / "b", "b.example.org")
    pairs = (f"{cert},{key}", f"{wild_cert},{wild_key}:*.wild.example.org,other.example.org")
    async with running(tmp_path / "s", secure_port=0, tls_sni_cert_key=pairs, tls_min_version="VersionTLS13") as api:
        url = api.server.listeners.url
        version, names = await _served(url, "a.example.com")
        assert version == "TLSv1.3" and "a.example.com" in names
        for asked in ("x.wild.example.org", "other.example.org"):
            assert "b.example.org" in (await _served(url, asked))[1]
        assert "a.example.com" not in (await _served(url, "localhost"))[1]
        with pytest.raises(ssl.SSLError):
            await _served(url, "localhost", maximum_version=ssl.TLSVersion.TLSv1_2)


async def test_serving_certificates_are_read_again(tmp_path: Path) -> None:
    cert, key = _certificate(tmp_path / "a", "one.example.com")
    options = {"secure_port": 0, "tls_cert_file": cert, "tls_private_key_file": key}
    async with running(tmp_path / "s", **options) as api:
        url = api.server.listeners.url
        assert "one.example.com" in (await _served(url, "localhost"))[1]
        other_cert, other_key = _certificate(tmp_path / "b", "two.example.com")
        _write(key, b"no key")  # what cannot be used changes nothing
        await asyncio.sleep(1.2)
        assert "one.example.com" in (await _served(url, "localhost"))[1]
        _write(key, _read(other_key))
        _write(cert, _read(other_cert))
        for _ in range(100):
            if "two.example.com" in (await _served(url, "localhost"))[1]:
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("the new certificate is not served")


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def _write(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)


# ---------------------------------------------------------------- configurations that are read again


def _told(kind: str, **more: Any) -> bytes:
    return json.dumps({"apiVersion": "apiserver.config.k8s.io/v1", "kind": kind, **more}).encode()


async def _comes_about(ask: Callable[[], Awaitable[int]], code: int) -> None:
    for _ in range(200):
        if await ask() == code:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{code} is not answered")


async def test_authentication_follows_its_configuration(tmp_path: Path) -> None:
    file = str(tmp_path / "authn.yaml")
    _write(file, _told("AuthenticationConfiguration", anonymous={"enabled": True}))
    async with running(tmp_path / "s", authentication_config=file) as api:

        async def nobody() -> int:
            return (await api.request("GET", "/version", token="")).status

        assert await nobody() == 200
        _write(file, _told("AuthenticationConfiguration", anonymous={"enabled": "x", "conditions": [{}]}))
        await asyncio.sleep(1.2)
        assert await nobody() == 200
        _write(file, _told("AuthenticationConfiguration", anonymous={"enabled": False}))
        await _comes_about(nobody, 401)
        page = (await api.request("GET", "/metrics")).body.decode()
        name = "apiserver_authentication_config_controller"
        for status in ("success", "failure"):
            assert re.search(rf'{name}_automatic_reloads_total{{apiserver_id_hash="[^"]+",status="{status}"}} 1', page)
        digest = hashlib.sha256(_read(file)).hexdigest()
        assert f'hash="sha256:{digest}"}} 1' in page


async def test_authorization_follows_its_configuration(tmp_path: Path) -> None:
    def authorizers(*kinds: str) -> bytes:
        return _told("AuthorizationConfiguration", authorizers=[{"type": kind, "name": kind.lower()} for kind in kinds])

    file = str(tmp_path / "authz.yaml")
    _write(file, authorizers("AlwaysAllow"))
    async with running(tmp_path / "s", authorization_config=file) as api:

        async def alice() -> int:
            return (await api.request("GET", PODS, token=ALICE)).status

        assert await alice() == 200
        _write(file, authorizers("RBAC"))
        await asyncio.sleep(1.2)
        assert await alice() == 200  # RBAC has to be there from the start
        _write(file, authorizers("AlwaysDeny"))
        await _comes_about(alice, 403)


# ---------------------------------------------------------------- the end


async def test_new_requests_are_sent_away_while_those_under_way_are_done(tmp_path: Path) -> None:
    body = json.dumps({"metadata": {"name": "late"}}).encode()
    head = (
        f"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with running(tmp_path, shutdown_send_retry_after=True, shutdown_grace_s=30.0) as api:
        reader, writer = await api.connect()
        writer.write(head.encode() + body[:5])
        await until(lambda: api.server.running)
        stopping = asyncio.create_task(api.server.stop())
        await until(lambda: api.server.health.stopping)
        refused = await api.request("GET", "/version")
        assert (refused.status, refused.headers["Retry-After"]) == (429, "5")
        assert refused.body == b"The apiserver is shutting down, please try again later.\n"
        assert (await api.request("GET", "/livez")).status == 200
        assert (await api.request("GET", "/readyz")).status == 500
        writer.write(body[5:])
        assert (await reader.readline()).startswith(b"HTTP/1.1 201")
        writer.close()
        await stopping
