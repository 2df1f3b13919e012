"""What signs certificates and tokens: keys from files, loaded with the first thing to sign (most clusters never do)."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastkube.api.tokens import KeyRing, make_key
from fastkube.controllers.options import ControllerManagerOptions

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

BACKDATE_S = 300.0
"""Certificates begin a little earlier, for clients whose clocks lag."""
SHORT_S = 8 * 3600.0
"""From this validity on the time of BACKDATE_S is taken off its end."""

KEY_USAGES = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
EXTENDED_KEY_USAGES = {
    "any": "2.5.29.37.0",
    "server auth": "1.3.6.1.5.5.7.3.1",
    "client auth": "1.3.6.1.5.5.7.3.2",
    "code signing": "1.3.6.1.5.5.7.3.3",
    "email protection": "1.3.6.1.5.5.7.3.4",
    "s/mime": "1.3.6.1.5.5.7.3.4",
    "ipsec end system": "1.3.6.1.5.5.7.3.5",
    "ipsec tunnel": "1.3.6.1.5.5.7.3.6",
    "ipsec user": "1.3.6.1.5.5.7.3.7",
    "timestamping": "1.3.6.1.5.5.7.3.8",
    "ocsp signing": "1.3.6.1.5.5.7.3.9",
    "microsoft sgc": "1.3.6.1.4.1.311.10.3.3",
    "netscape sgc": "2.16.840.1.113730.4.1",
}


class CertificateAuthority:
    """The cluster's CA, as the signing controller uses it."""

    def __init__(self, certificate: x509.Certificate, key: CertificateIssuerPrivateKeyTypes) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def load(cls, cert_file: str, key_file: str) -> CertificateAuthority:
        """Raises ValueError or OSError for files that are none."""
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        key: Any = serialization.load_pem_private_key(Path(key_file).read_bytes(), None)
        return cls(x509.load_pem_x509_certificate(Path(cert_file).read_bytes()), key)

    def sign(self, request: x509.CertificateSigningRequest, usages: Sequence[str], ttl_s: float, now: float) -> str:
        """The certificate (PEM) for a request: its subject, names and key, with these usages; raises ValueError."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        start, end = self._validity(ttl_s, now)
        builder = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(self._certificate.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        if (
            usage := _key_usage(usages)
        ) is not None:  # as upstream: none rather than an empty one, which OpenSSL refuses
            builder = builder.add_extension(usage, critical=True)
        if extended := [EXTENDED_KEY_USAGES[usage] for usage in usages if usage in EXTENDED_KEY_USAGES]:
            identifiers = [x509.ObjectIdentifier(dotted) for dotted in extended]
            builder = builder.add_extension(x509.ExtendedKeyUsage(identifiers), critical=False)
        if (issuer := self._identifier()) is not None:
            builder = builder.add_extension(issuer, critical=False)
        try:
            names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            pass
        else:
            builder = builder.add_extension(names.value, critical=not list(request.subject))
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()

    def _validity(self, ttl_s: float, now: float) -> tuple[datetime.datetime, datetime.datetime]:
        """Never longer than the CA's own."""
        start = now - BACKDATE_S
        end = (now if ttl_s < SHORT_S else start) + ttl_s
        last = self._certificate.not_valid_after_utc
        if now >= last.timestamp():
            raise ValueError("the signer has expired: NotAfter=" + str(last))
        return _date(start), min(_date(end), last)

    def _identifier(self) -> x509.AuthorityKeyIdentifier | None:
        from cryptography import x509

        try:
            own = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return None
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _date(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def _key_usage(usages: Sequence[str]) -> x509.KeyUsage | None:
    """None where only extended usages are asked for. Raises ValueError for a usage that does not exist."""
    from cryptography import x509

    for usage in usages:
        if usage not in KEY_USAGES and usage not in EXTENDED_KEY_USAGES:
            raise ValueError(f"unrecognized usage values: {[usage]}")
    wanted = {KEY_USAGES[usage] for usage in usages if usage in KEY_USAGES}
    if not wanted:
        return None
    return x509.KeyUsage(**{field: field in wanted for field in set(KEY_USAGES.values())})


class Signers:
    """What the options name, each loaded when it is first used; None where the option is not given."""

    def __init__(self, authority: tuple[str, str] = ("", ""), accounts_key: str = "") -> None:
        """`authority`: the files of its certificate and its key."""
        self._authority = authority
        self._accounts_key = accounts_key

    @classmethod
    def of(cls, options: ControllerManagerOptions) -> Signers:
        """Raises ValueError if only one half of a pair is given."""
        pair = (options.cluster_signing_cert_file, options.cluster_signing_key_file)
        if bool(pair[0]) != bool(pair[1]):
            raise ValueError("cluster-signing-cert-file, cluster-signing-key-file: either both or none must be given")
        return cls(pair, options.service_account_private_key_file)

    @cached_property
    def certificates(self) -> CertificateAuthority | None:
        return CertificateAuthority.load(*self._authority) if self._authority[0] else None

    @cached_property
    def tokens(self) -> KeyRing | None:
        """A key that is not there yet is made: the API server takes it then."""
        if not self._accounts_key:
            return None
        make_key(Path(self._accounts_key))
        return KeyRing.load(Path(self._accounts_key), ())
