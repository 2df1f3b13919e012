"""Keys and certificates: made at the first start, kept in one directory, read by nobody else.

    ca.crt ca.key                    the cluster's certificate authority (also signs client certificates)
    apiserver.crt apiserver.key      what the server shows
    admin.crt admin.key              a client of the group system:masters
    front-proxy-ca.crt ...-ca.key    the authority that aggregated API servers believe user names from
    front-proxy-client.crt ....key   what the server shows to them
    sa.key                           RSA key that signs ServiceAccount tokens (RS256)

Rules:
  1. Private keys are created with mode 0600 and never leave the directory, except into a kubeconfig (also 0600).
  2. A certificate's first line says what it was made for (names, last day). PEM allows such text, and so a later start
     knows without parsing X.509 whether the file still serves; if not, it is made anew. The authority never is.
  3. `cryptography` is imported only when something must be made: it costs more than the rest of a restart. At a first
     start another process makes it (`make_beside`): this one goes on with its imports, and never has it in its memory.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastkube.api.tokens import make_key

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

_DAY_S = 86_400
_CA_DAYS = 3650
_LEAF_DAYS = 365
_RENEW_DAYS = 90
"""A certificate with fewer days left is made anew at start."""
_NICE = 10

PROXY_NAME = "front-proxy-client"
ADMIN_NAME = "kubernetes-admin"
ADMIN_GROUP = "system:masters"


class _Authority(NamedTuple):
    cert: Path
    key: Path


class Pki(NamedTuple):
    """The paths of what `prepare` has made."""

    ca_cert: Path
    ca_key: Path
    server_cert: Path
    server_key: Path
    admin_cert: Path
    admin_key: Path
    proxy_ca_cert: Path
    proxy_ca_key: Path
    proxy_cert: Path
    proxy_key: Path


def prepare(directory: Path, names: Iterable[str], now: float) -> Pki:
    """Makes what is missing or outdated at the time `now`; `names` (DNS names, IP addresses) are the server's."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    pki = Pki(
        directory / "ca.crt",
        directory / "ca.key",
        directory / "apiserver.crt",
        directory / "apiserver.key",
        directory / "admin.crt",
        directory / "admin.key",
        directory / "front-proxy-ca.crt",
        directory / "front-proxy-ca.key",
        directory / "front-proxy-client.crt",
        directory / "front-proxy-client.key",
    )
    cluster, proxy = _Authority(pki.ca_cert, pki.ca_key), _Authority(pki.proxy_ca_cert, pki.proxy_ca_key)
    for authority, name in ((cluster, "fastkube-ca"), (proxy, "fastkube-front-proxy-ca")):
        if not (authority.cert.exists() and authority.key.exists()):
            _make_authority(authority, name, now)
    latest = _day(now + _RENEW_DAYS * _DAY_S)
    wanted = ",".join(sorted(set(names)))
    for authority, cert, key, purpose in (
        (cluster, pki.server_cert, pki.server_key, f"server {wanted}"),
        (cluster, pki.admin_cert, pki.admin_key, f"client {ADMIN_NAME}"),
        (proxy, pki.proxy_cert, pki.proxy_key, f"proxy {PROXY_NAME}"),
    ):
        if not _serves(cert, key, purpose, authority.cert.stat().st_mtime_ns, latest):
            _make_leaf(authority, cert, key, purpose, now)
    return pki


class PeerPki(NamedTuple):
    """An authority of its own: whoever has a certificate of the cluster's must not pass for a peer."""

    ca_cert: Path
    cert: Path
    key: Path


def prepare_peers(directory: Path, names: Iterable[str], now: float) -> PeerPki:
    """Makes what servers of one machine show each other; `names` are those they are reached by."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    cert, key = directory / "peer.crt", directory / "peer.key"
    authority = _Authority(directory / "ca.crt", directory / "ca.key")
    if not (authority.cert.exists() and authority.key.exists()):
        _make_authority(authority, "fastkube-peer-ca", now)
    purpose = f"peer {','.join(sorted(set(names)))}"
    if not _serves(cert, key, purpose, authority.cert.stat().st_mtime_ns, _day(now + _RENEW_DAYS * _DAY_S)):
        _make_leaf(authority, cert, key, purpose, now)
    return PeerPki(authority.cert, cert, key)


def server_names(*more: str, service_cluster_ip_range: str = "") -> list[str]:
    """The names of a serving certificate: those every cluster's clients use, this host's, and `more`."""
    names = {
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "::1",
        socket.gethostname().lower() or "localhost",
    }
    if service_cluster_ip_range:
        network = ipaddress.ip_network(service_cluster_ip_range.split(",")[0], strict=False)
        names.add(str(network.network_address + 1))
    names.update(name for name in more if name and name not in ("0.0.0.0", "::"))
    return sorted(names)


def is_there(directory: Path) -> bool:
    """Whether this is not a first start."""
    return (directory / "apiserver.crt").exists()


def make_beside(directory: Path, names: Iterable[str]) -> None:
    """What another process does at a first start: what `prepare` would do here, and then the key of tokens.

    It says a line between the two. If it fails, `prepare` finds its files missing, and says what is wrong itself.
    """
    with contextlib.suppress(OSError, ValueError):
        prepare(directory, names, time.time())
        print(flush=True)
        os.nice(_NICE)  # no start waits for it
        service_account_key(directory)


def service_account_key(directory: Path) -> Path:
    """The path of the key that signs ServiceAccount tokens; made if missing, which takes some 50 ms."""
    private = directory / "sa.key"
    make_key(private)
    return private


def write_kubeconfig(
    path: Path, server: str, *, ca_file: Path | None, cert_file: Path | None = None, key_file: Path | None = None,
    token: str = "", user: str = ADMIN_NAME, cluster: str = "fastkube",
) -> None:  # fmt: skip
    """Writes credentials for `server` with everything embedded, so that the file works wherever it is copied."""
    lines = ["apiVersion: v1", "kind: Config", "clusters:", f"- name: {cluster}", "  cluster:", f"    server: {server}"]
    if ca_file is not None:
        lines.append(f"    certificate-authority-data: {_embedded(ca_file)}")
    lines += ["users:", f"- name: {user}", "  user:"]
    if cert_file is not None and key_file is not None:
        lines.append(f"    client-certificate-data: {_embedded(cert_file)}")
        lines.append(f"    client-key-data: {_embedded(key_file)}")
    if token:
        lines.append(f"    token: {token}")
    context = f"{user}@{cluster}"
    lines += ["contexts:", f"- name: {context}", "  context:", f"    cluster: {cluster}", f"    user: {user}"]
    lines += [f"current-context: {context}", "preferences: {}", ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, "\n".join(lines).encode(), 0o600)


def _embedded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _serves(cert: Path, key: Path, purpose: str, not_before_ns: int, good_until: str) -> bool:
    """Whether the files are there, made for `purpose`, by the present authority, and good until that day."""
    if not (cert.exists() and key.exists()) or cert.stat().st_mtime_ns < not_before_ns:
        return False
    with cert.open() as file:
        first = file.readline().strip()
    made_for, _, until = first.rpartition(" until ")
    return made_for == f"fastkube {purpose}" and until >= good_until


def _day(now: float) -> str:
    return datetime.datetime.fromtimestamp(now, datetime.UTC).date().isoformat()


def _make_authority(authority: _Authority, common_name: str, now: float) -> None:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    key = _new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = _builder(name, name, key, now, _CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    _write(authority.key, _private_pem(key), 0o600)
    _write(authority.cert, _signed_pem(builder, key), 0o644)


def _make_leaf(signing: _Authority, cert_path: Path, key_path: Path, purpose: str, now: float) -> None:
    """`purpose` is "server NAME,NAME...", "client NAME", "proxy NAME" or, for both sides, "peer NAME,NAME..."."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    role, _, names = purpose.partition(" ")
    authority = x509.load_pem_x509_certificate(signing.cert.read_bytes())
    signer = serialization.load_pem_private_key(signing.key.read_bytes(), None)
    if not isinstance(signer, EllipticCurvePrivateKey):
        raise ValueError(f"{signing.key}: not an elliptic curve key")
    key = _new_key()
    if role == "server":
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])
        extended = [ExtendedKeyUsageOID.SERVER_AUTH]
    elif role == "peer":
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fastkube-peer")])
        extended = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    else:
        groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, ADMIN_GROUP)] if role == "client" else []
        subject = x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, names)])
        extended = [ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = _builder(subject, authority.subject, key, now, _LEAF_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
    )
    if role != "client":
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names.split(",")]), critical=False
        )
    until = _day(now + _LEAF_DAYS * _DAY_S)
    _write(key_path, _private_pem(key), 0o600)
    _write(cert_path, f"fastkube {purpose} until {until}\n".encode() + _signed_pem(builder, signer), 0o644)


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, now: float, days: int
) -> x509.CertificateBuilder:
    from cryptography import x509

    start = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - datetime.timedelta(minutes=5))  # clients' clocks may lag a little
        .not_valid_after(start + datetime.timedelta(days=days))
    )


def _signed_pem(builder: x509.CertificateBuilder, signer: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import hashes, serialization

    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _private_pem(key: PrivateKeyTypes) -> bytes:
    """In the form whose first line names the algorithm: clients in Java read no other of elliptic curves."""
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replaces the file in one step, never readable by more than `mode` allows."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(temporary, path)
