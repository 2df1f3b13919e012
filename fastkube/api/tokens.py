"""ServiceAccount tokens: JSON Web Tokens signed with RS256, bound to an account and perhaps to a Pod, Node or Secret.

Source: RFC 7515 and 7519, and the Kubernetes documentation of bound service account tokens. Signing and verifying are
pure functions of a key and the claims; whether what a token is bound to still exists is asked in `authn`.
`cryptography` is imported with the first key, which is loaded with the first token: most starts need neither.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

Claims = dict[str, Any]


LEGACY_ISSUER = "kubernetes/serviceaccount"
"""Of the tokens in Secrets, which have no end of their own."""


_BAD_SIGNATURE = "go-jose/go-jose: error in cryptographic primitive"


class InvalidToken(Exception):
    """The text is no token of ours, was altered, or its time is over."""


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise InvalidToken("not base64url") from None


class KeyRing:
    """The key that signs and all keys that verify, found by their key IDs."""

    def __init__(self, signing: RSAPrivateKey, verifying: Iterable[RSAPublicKey] = ()) -> None:
        self._signing = signing
        own = signing.public_key()
        self.key_id = key_id(own)
        self.public: dict[str, RSAPublicKey] = {self.key_id: own}
        for key in verifying:
            self.public.setdefault(key_id(key), key)

    @classmethod
    def load(cls, signing_file: Path, verifying_files: Iterable[str]) -> KeyRing:
        """Raises ValueError, naming the file, for what is not an RSA key."""
        return cls(_load_private(signing_file), [_load_public(Path(file)) for file in verifying_files])

    def sign(self, claims: Claims) -> str:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        header = _encode(orjson.dumps({"alg": "RS256", "kid": self.key_id}))
        message = f"{header}.{_encode(orjson.dumps(claims))}"
        signature = self._signing.sign(message.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{message}.{_encode(signature)}"

    def verify(self, token: str, now: float) -> Claims:
        """The claims of a token which is signed by a known key and valid at `now`; raises InvalidToken."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        message, _, signature = token.rpartition(".")
        header_text, dot, claims_text = message.partition(".")
        if not dot:
            raise InvalidToken("not three parts")
        header, claims = _json_object(header_text), _json_object(claims_text)
        if header.get("alg") != "RS256":
            raise InvalidToken("unexpected algorithm")
        key = self.public.get(header.get("kid") or self.key_id)
        if key is None:
            raise InvalidToken(_BAD_SIGNATURE)
        try:
            key.verify(_decode(signature), message.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            raise InvalidToken(_BAD_SIGNATURE) from None
        endless = "exp" not in claims and claims.get("iss") == LEGACY_ISSUER
        expires, not_before = math.inf if endless else claims.get("exp"), claims.get("nbf", 0)
        if not isinstance(expires, int | float) or now >= expires:
            raise InvalidToken("service account token has expired")
        if not isinstance(not_before, int | float) or now < not_before - 1:
            raise InvalidToken("service account token is not valid yet")
        return claims

    def jwks(self) -> dict[str, Any]:
        """The public keys as a JSON Web Key Set."""
        keys = []
        for identifier, key in self.public.items():
            numbers = key.public_numbers()
            modulus = numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8)
            exponent = numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8)
            entry = {"use": "sig", "kty": "RSA", "kid": identifier, "alg": "RS256"}
            keys.append({**entry, "n": _encode(modulus), "e": _encode(exponent)})
        return {"keys": keys}


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(_decode(text))
    except orjson.JSONDecodeError:
        raise InvalidToken("not JSON") from None
    if not isinstance(value, dict):
        raise InvalidToken("not an object")
    return value


def make_key(path: Path) -> None:
    """A new RSA key in a file of mode 0600, unless there is one: of several processes only one makes it."""
    if path.exists():
        return
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(serialization.Encoding.PEM, form, plain))
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass  # another was faster: its key is the cluster's
    finally:
        os.unlink(temporary)


def key_id(key: RSAPublicKey) -> str:
    """The digest of the key itself, so that any server with the key names it alike."""
    from cryptography.hazmat.primitives import serialization

    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _encode(hashlib.sha256(der).digest())


def _load_private(path: Path) -> RSAPrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError(f"{path}: not an RSA private key")
    return key


def _load_public(path: Path) -> RSAPublicKey:
    """Takes a public key, or the public half of a private one, as upstream does."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    pem = path.read_bytes()
    if b"PRIVATE KEY" in pem:
        return _load_private(path).public_key()
    key = serialization.load_pem_public_key(pem)
    if not isinstance(key, RSAPublicKey):
        raise ValueError(f"{path}: not an RSA public key")
    return key
