"""Servers that the API server asks: webhooks, an issuer of tokens; each records what it was sent."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID


class Hook:
    """A webhook on plain HTTP. `respond` makes the status of a review from its spec; None is a failure (500)."""

    def __init__(self, respond: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        self.respond = respond
        self.reviews: list[dict[str, Any]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        review = await request.json()
        self.reviews.append(review)
        status = self.respond(review["spec"])
        if status is None:
            return web.Response(status=500)
        return web.json_response({**review, "status": status})

    def kubeconfig(self, folder: Path) -> str:
        """A kubeconfig file that leads here."""
        path = folder / f"hook-{self.url.rpartition(':')[2].strip('/')}.yaml"
        path.parent.mkdir(exist_ok=True)
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "hook",
            "clusters": [{"name": "hook", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": "hook-token"}}],
            "contexts": [{"name": "hook", "context": {"cluster": "hook", "user": "me"}}],
        }  # fmt: skip
        path.write_text(json.dumps(document))
        return str(path)


@asynccontextmanager
async def serving(
    handlers: dict[str, Callable[[web.Request], Any]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """A server with these GET and POST handlers by path; gives its URL."""
    app = web.Application()
    for path, handler in handlers.items():
        app.router.add_route("*", path, handler)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def hook(respond: Callable[[dict[str, Any]], dict[str, Any] | None]) -> AsyncIterator[Hook]:
    made = Hook(respond)
    async with serving({"/": made.handle}) as url:
        made.url = url + "/"
        yield made


# ---------------------------------------------------------------- an issuer


def certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A context for a server on 127.0.0.1, and the file of the authority that verifies it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    cert_file, key_file = folder / "issuer.crt", folder / "issuer.key"
    cert_file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    pem = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, pem, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    return context, str(cert_file)


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _integer(number: int, size: int = 0) -> str:
    return encoded(number.to_bytes(size or (number.bit_length() + 7) // 8))


class TokenIssuer:
    """Signs tokens with keys of its own, and publishes the keys."""

    def __init__(self, ca_file: str) -> None:
        self.url = ""
        self.ca_file = ca_file
        self.fetches = 0
        self.held = ""
        """The token that is given to who asks for claims, and what was shown for it."""
        self.credentials: list[str] = []
        self._rsa = rsa.generate_private_key(65537, 2048)
        self._ec = ec.generate_private_key(ec.SECP256R1())
        self.published = ["rsa", "ec"]

    async def discovery(self, request: web.Request) -> web.Response:
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})

    async def keys(self, request: web.Request) -> web.Response:
        self.fetches += 1
        numbers, point = self._rsa.public_key().public_numbers(), self._ec.public_key().public_numbers()
        known = {
            "rsa": {"kty": "RSA", "kid": "rsa", "n": _integer(numbers.n), "e": _integer(numbers.e)},
            "ec": {"kty": "EC", "kid": "ec", "crv": "P-256", "x": _integer(point.x, 32), "y": _integer(point.y, 32)},
        }
        return web.json_response({"keys": [known[name] for name in self.published]})

    async def claims(self, request: web.Request) -> web.Response:
        """A source of distributed claims."""
        self.credentials.append(request.headers.get("Authorization", ""))
        return web.Response(text=self.held)

    def token(self, claims: dict[str, Any], algorithm: str = "RS256", key: str = "rsa") -> str:
        header = encoded(json.dumps({"alg": algorithm, "kid": key}).encode())
        message = f"{header}.{encoded(json.dumps(claims).encode())}"
        if algorithm == "none":
            return f"{message}."
        if algorithm[:2] == "ES":
            der = self._ec.sign(message.encode(), ec.ECDSA(hashes.SHA256()))
            signature = b"".join(number.to_bytes(32) for number in decode_dss_signature(der))
        elif algorithm[:2] == "PS":
            filling = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
            signature = self._rsa.sign(message.encode(), filling, hashes.SHA256())
        else:
            signature = self._rsa.sign(message.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{message}.{encoded(signature)}"


@asynccontextmanager
async def issuer(folder: Path) -> AsyncIterator[TokenIssuer]:
    context, ca_file = certificate(folder)
    made = TokenIssuer(ca_file)
    handlers = {"/.well-known/openid-configuration": made.discovery, "/keys": made.keys, "/claims": made.claims}
    async with serving(handlers, context) as url:
        made.url = url
        yield made
