"""Whether a certificate and a key in PEM belong together, with the complaints of Go's tls.X509KeyPair."""

from __future__ import annotations

import base64
import re

_BLOCK = re.compile(rb"^-----BEGIN ([^\n]*?)-----[ \t]*\r?\n(.*?)^-----END \1-----[ \t]*\r?$", re.DOTALL | re.MULTILINE)


def pem_blocks(text: bytes) -> list[tuple[str, bytes]]:
    """The type and content of each block; what is between them is skipped, as are blocks that are no base64."""
    found = []
    for match in _BLOCK.finditer(text):
        body = match[2].rpartition(b"\n\n")[2] if b": " in match[2] else match[2]
        try:
            found.append((match[1].decode(errors="replace"), base64.b64decode(b"".join(body.split()), validate=True)))
        except ValueError:
            continue
    return found


def pair_fault(certificate: bytes, key: bytes) -> str | None:
    """What is wrong with the pair; None if it is good."""
    blocks = pem_blocks(certificate)
    certificates = [body for kind, body in blocks if kind == "CERTIFICATE"]
    skipped = [kind for kind, _ in blocks if kind != "CERTIFICATE"]
    if not certificates:
        return _no_certificate(skipped)
    skipped = []
    for kind, body in pem_blocks(key):
        if kind == "PRIVATE KEY" or kind.endswith(" PRIVATE KEY"):
            return _mismatch(certificates[0], body)
        skipped.append(kind)
    if not skipped:
        return "tls: failed to find any PEM data in key input"
    if skipped == ["CERTIFICATE"]:
        return "tls: found a certificate rather than a key in the PEM for the private key"
    return (
        'tls: failed to find PEM block with type ending in "PRIVATE KEY" in key input after skipping PEM blocks of the '
        f"following types: [{' '.join(skipped)}]"
    )


def _no_certificate(skipped: list[str]) -> str:
    if not skipped:
        return "tls: failed to find any PEM data in certificate input"
    if len(skipped) == 1 and skipped[0].endswith("PRIVATE KEY"):
        return (
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; "
            "PEM inputs may have been switched"
        )
    return (
        'tls: failed to find "CERTIFICATE" PEM block in certificate input after skipping PEM blocks of the following '
        f"types: [{' '.join(skipped)}]"
    )


def _mismatch(certificate: bytes, key: bytes) -> str | None:
    from cryptography import x509  # slow to import, and most servers never see such a Secret
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    try:
        public = x509.load_der_x509_certificate(certificate).public_key()
    except Exception:  # whatever the parser makes of bytes that are no certificate
        return "x509: malformed certificate"
    try:
        private = load_der_private_key(key, None)
    except Exception:  # likewise
        return "tls: failed to parse private key"
    if type(private.public_key()) is not type(public):
        return "tls: private key type does not match public key type"
    return None if private.public_key() == public else "tls: private key does not match public key"


def certificate_fault(body: bytes) -> str | None:
    """Whether these are the bytes of a certificate."""
    from cryptography import x509

    try:
        x509.load_der_x509_certificate(body)
    except Exception:  # whatever the parser makes of bytes that are no certificate
        return "x509: malformed certificate"
    return None


def request_fault(text: bytes) -> str | None:
    """Whether this is a PKCS#10 request in PEM, signed with its own key."""
    blocks = pem_blocks(text)
    if not blocks or blocks[0][0] != "CERTIFICATE REQUEST":
        return "PEM block type must be CERTIFICATE REQUEST"
    from cryptography import x509

    try:
        request = x509.load_der_x509_csr(blocks[0][1])
    except Exception:  # likewise
        return "asn1: structure error: malformed certificate request"
    return None if request.is_signature_valid else "x509: certificate request signature is invalid"
