"""The TLS of the secure port as kube-apiserver's flags say it, in the names that Go has for versions and ciphers."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import NamedTuple

TLS_VERSIONS = ("VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13")
_VERSION = dict(
    zip(
        TLS_VERSIONS,
        (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3),
        strict=True,
    )
)
_TLS13_SUITES = frozenset(("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"))
"""Those of TLS 1.3 cannot be chosen, neither in Go nor here: all are always there."""
_PARTS = (
    ("_WITH_", "-"), ("TLS_RSA-", ""), ("TLS_", ""), ("3DES_EDE_CBC", "DES-CBC3"), ("AES_", "AES"), ("_CBC", ""),
    ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"), ("_", "-"),
)  # fmt: skip


def min_version(name: str) -> ssl.TLSVersion:
    """Raises ValueError in upstream's words."""
    if name not in _VERSION:
        raise ValueError(f'unknown tls version "{name}"')
    return _VERSION[name]


def cipher_string(names: Sequence[str]) -> str:
    """OpenSSL's list of what Go calls by these names; "" where nothing is chosen. Raises ValueError."""
    known = []
    for name in names:
        if name in _TLS13_SUITES:
            continue
        told = name
        for go, openssl in _PARTS:
            told = told.replace(go, openssl)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(told)
        except ssl.SSLError:
            raise ValueError(f"Cipher suite {name} not supported or doesn't exist") from None
        known.append(told)
    return ":".join(known)


class NamedPair(NamedTuple):
    """A certificate and its key, for the host names that it is asked for by; none: those that it is for."""

    cert: str
    key: str
    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> NamedPair:
        """Of `CERT,KEY` or `CERT,KEY:NAME,...`; raises ValueError in upstream's words."""
        files, _, names = text.partition(":")
        cert, comma, key = files.partition(",")
        if not comma or not cert or not key or "," in key:
            raise ValueError("expected comma separated certificate and key file paths")
        return cls(cert.strip(), key.strip(), tuple(name.strip() for name in names.split(",") if name.strip()))

    def hosts(self) -> tuple[str, ...]:
        """The names, in lower case; those in the certificate unless others are given."""
        if self.names:
            return tuple(name.lower() for name in self.names)
        from pathlib import Path

        from cryptography import x509

        certificate = x509.load_pem_x509_certificate(Path(self.cert).read_bytes())
        try:
            extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return ()
        return tuple(name.lower() for name in extension.value.get_values_for_type(x509.DNSName))


def by_server_name(
    pairs: Sequence[tuple[tuple[str, ...], ssl.SSLContext]],
) -> Callable[[ssl.SSLObject, str, ssl.SSLContext], None]:
    """What picks the certificate that a client asks for: exact names first, then `*.` for the first label."""
    known: dict[str, ssl.SSLContext] = {}
    for hosts, context in pairs:
        for host in hosts:
            known.setdefault(host, context)

    def pick(handshake: ssl.SSLObject, name: str | None, _default: ssl.SSLContext) -> None:
        asked = (name or "").lower().rstrip(".")
        found = known.get(asked) or known.get("*." + asked.partition(".")[2])
        if found is not None:
            handshake.context = found

    return pick
