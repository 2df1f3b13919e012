"""Signatures of JSON Web Tokens by the keys of other issuers (RFC 7515, 7517, 7518): RS, PS and ES algorithms, EdDSA.

ServiceAccount tokens, which the server signs itself, are those of `tokens`. Nothing here looks at claims.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import orjson

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA")

_CURVES = {"P-256": "SECP256R1", "P-384": "SECP384R1", "P-521": "SECP521R1"}
_CURVE_OF_ALGORITHM = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


class BadToken(Exception):
    """The text is no token, or no key of the set has signed it."""


class Token(NamedTuple):
    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def read(text: str) -> Token:
    """The parts of a token in compact form, not verified. Raises BadToken."""
    parts = text.split(".")
    if len(parts) != 3:
        raise BadToken("not three parts")
    return Token(_object(parts[0]), _object(parts[1]), f"{parts[0]}.{parts[1]}".encode(), _bytes(parts[2]))


def verify(token: Token, keys: list[dict[str, Any]], algorithms: tuple[str, ...]) -> None:
    """Raises BadToken unless one of the keys (JWKs) has signed the token by one of the algorithms."""
    algorithm = token.header.get("alg")
    if algorithm not in algorithms or algorithm not in ALGORITHMS:
        raise BadToken(f"unexpected signature algorithm {algorithm!r}")
    for key in candidates(token, keys):
        if key.get("alg") in (None, algorithm) and _signed_by(token, algorithm, key):
            return
    raise BadToken("failed to verify id token signature")


def candidates(token: Token, keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The keys that the token may be signed by, going by its key ID."""
    identifier = token.header.get("kid")
    return [key for key in keys if key.get("use") in (None, "sig") and (not identifier or key.get("kid") == identifier)]


def _signed_by(token: Token, algorithm: str, jwk: dict[str, Any]) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        _check(token, algorithm, jwk)
    except (InvalidSignature, ValueError, KeyError, TypeError, BadToken):
        return False
    return True


def _check(token: Token, algorithm: str, jwk: dict[str, Any]) -> None:
    """Raises InvalidSignature, or another error for a key that does not go with the algorithm."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    digests: dict[str, Any] = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
    digest = digests.get(algorithm[2:], hashes.SHA256)()
    if algorithm[:2] in ("RS", "PS"):
        _expect(jwk, "RSA")
        public = rsa.RSAPublicNumbers(_number(jwk["e"]), _number(jwk["n"])).public_key()
        filling: Any = padding.PKCS1v15()
        if algorithm[:2] == "PS":
            filling = padding.PSS(padding.MGF1(digest), digest.digest_size)
        public.verify(token.signature, token.signed, filling, digest)
    elif algorithm == "EdDSA":
        _expect(jwk, "OKP")
        ed25519.Ed25519PublicKey.from_public_bytes(_bytes(jwk["x"])).verify(token.signature, token.signed)
    else:
        _expect(jwk, "EC")
        if jwk["crv"] != _CURVE_OF_ALGORITHM[algorithm]:
            raise ValueError("another curve")
        curve = getattr(ec, _CURVES[jwk["crv"]])()
        point = ec.EllipticCurvePublicNumbers(_number(jwk["x"]), _number(jwk["y"]), curve).public_key()
        size = (curve.key_size + 7) // 8
        if len(token.signature) != 2 * size:
            raise ValueError("not a signature of this curve")
        halves = (int.from_bytes(token.signature[:size]), int.from_bytes(token.signature[size:]))
        point.verify(encode_dss_signature(*halves), token.signed, ec.ECDSA(digest))


def _expect(jwk: dict[str, Any], kind: str) -> None:
    if jwk.get("kty") != kind:
        raise ValueError("a key of another type")


def _number(text: str) -> int:
    return int.from_bytes(_bytes(text))


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise BadToken("not base64url") from None


def _object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(_bytes(text))
    except orjson.JSONDecodeError:
        raise BadToken("not JSON") from None
    if not isinstance(value, dict):
        raise BadToken("not an object")
    return value
