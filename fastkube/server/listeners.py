"""Where the server listens: HTTPS, plain HTTP for development, a Unix socket; and what clients need to get there."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fastkube.server import pki
from fastkube.server.reloading import Watched
from fastkube.server.tls_options import NamedPair, by_server_name, cipher_string, min_version

if TYPE_CHECKING:
    from fastkube.server.connection import HttpServer
    from fastkube.server.options import ServerOptions

_BACKLOG = 1024


class Listeners:
    """`url` and `ca_file` are known once `open` has returned."""

    def __init__(self, options: ServerOptions, shared_port: bool = False) -> None:
        """`shared_port`: this is one of several processes that serve the secure port."""
        self._options = options
        self._shared_port = shared_port
        self._reserved: socket.socket | None = None
        self._open: list[asyncio.AbstractServer] = []
        self._pki: pki.Pki | None = None
        self._context: ssl.SSLContext
        self.url = ""
        self.http_url = ""
        self.ca_file = ""

    async def open(self, http: HttpServer, now: float) -> None:
        """Raises OSError for a taken address and ValueError or ssl.SSLError for unusable files."""
        options, loop = self._options, asyncio.get_running_loop()
        try:
            if options.secure_port is not None:
                await self._open_secure(http, now)
            if options.http_port is not None:
                listener = await loop.create_server(http, "127.0.0.1", options.http_port, backlog=_BACKLOG)
                self._open.append(listener)
                self.http_url = f"http://127.0.0.1:{_port(listener)}"
            if options.unix_socket:
                unix = _bind_unix(Path(options.unix_socket))
                self._open.append(await loop.create_unix_server(http, sock=unix, backlog=_BACKLOG))
        except BaseException:
            self.close()
            raise
        self.url = self.url or self.http_url or f"unix://{options.unix_socket}"

    async def _open_secure(self, http: HttpServer, now: float) -> None:
        options = self._options
        host = options.bind_address
        if options.cert_dir:
            names = certificate_names(options)
            self._pki = await asyncio.to_thread(pki.prepare, Path(options.cert_dir), names, now)
        self._context = self._tls_context()
        if options.frontends:
            port = self._reserve(host, options.secure_port or 0)
        else:
            listener = await asyncio.get_running_loop().create_server(
                http.over_tls(lambda: self._context),
                host,
                options.secure_port,
                backlog=_BACKLOG,
                reuse_port=self._shared_port or options.permit_port_sharing or None,
            )
            self._open.append(listener)
            port = _port(listener)
        reached = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
        self.url = f"https://{f'[{reached}]' if ':' in reached else reached}:{port}"

    def _reserve(self, host: str, port: int) -> int:
        """Takes the port for the frontends. A socket that is bound and does not listen gets no connections."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:  # the port must not be another server's: a shared one would be taken twice
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            port = probe.getsockname()[1]
        reserved = self._reserved = socket.socket(family)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((host, port))
        return port

    def _tls_context(self) -> ssl.SSLContext:
        """Client certificates are asked for and may be left out; one that no authority signed ends the handshake."""
        options = self._options
        if options.tls_cert_file:
            self.ca_file = options.tls_cert_file
            context = self._context_of(options.tls_cert_file, options.tls_private_key_file)
        elif self._pki is not None:
            self.ca_file = str(self._pki.ca_cert)
            context = self._context_of(str(self._pki.server_cert), str(self._pki.server_key))
        else:
            raise ValueError("tls-cert-file: must be given when cert-dir is not")
        if options.tls_sni_cert_key:
            pairs = [NamedPair.parse(text) for text in options.tls_sni_cert_key]
            others = [(pair.hosts(), self._context_of(pair.cert, pair.key)) for pair in pairs]
            context.sni_callback = by_server_name(others)
        return context

    def _context_of(self, cert: str, key: str) -> ssl.SSLContext:
        """One that shows this certificate. Raises ValueError and OSError for files that cannot be used."""
        options = self._options
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = min_version(options.tls_min_version)
        if ciphers := cipher_string(options.tls_cipher_suites):
            context.set_ciphers(ciphers)
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(cert, key)
        except ssl.SSLError:
            raise ValueError(f"{cert}, {key}: not a certificate and its key (PEM)") from None
        for authority in self._authorities():
            try:
                context.load_verify_locations(authority)
            except ssl.SSLError:
                raise ValueError(f"{authority}: no certificates (PEM)") from None
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _authorities(self) -> list[str]:
        """Who signs the certificates of clients."""
        own = str(self._pki.ca_cert) if self._pki is not None else ""
        options = self._options
        return [path for path in (options.client_ca_file, options.requestheader_client_ca_file, own) if path]

    def watched(self) -> list[Watched]:
        """The files that new connections follow when they change."""
        options = self._options
        if options.secure_port is None:
            return []
        named = [options.tls_cert_file, options.tls_private_key_file]
        for pair in map(NamedPair.parse, options.tls_sni_cert_key):
            named += (pair.cert, pair.key)
        found = [("serving certificate", named)]
        found.append(("client CA", [options.client_ca_file, options.requestheader_client_ca_file]))
        chosen = [(what, [path for path in paths if path]) for what, paths in found]
        return [Watched(what, paths, self._renew) for what, paths in chosen if paths]

    def _renew(self) -> None:
        self._context = self._tls_context()

    @property
    def front_proxy(self) -> tuple[Path, Path] | None:
        """The certificate and key that aggregated API servers know this one by; None if there are none."""
        options = self._options
        if options.proxy_client_cert_file:
            return Path(options.proxy_client_cert_file), Path(options.proxy_client_key_file)
        return (self._pki.proxy_cert, self._pki.proxy_key) if self._pki is not None else None

    def authentication(self) -> dict[str, str]:
        """What aggregated API servers need to know who asks: the data of `extension-apiserver-authentication`."""
        options, data = self._options, {}
        clients = options.client_ca_file or (str(self._pki.ca_cert) if self._pki is not None else "")
        if clients:
            data["client-ca-file"] = Path(clients).read_text()
        names = list(options.requestheader_allowed_names)
        proxies = options.requestheader_client_ca_file
        if not proxies and self._pki is not None and not options.proxy_client_cert_file:
            proxies, names = str(self._pki.proxy_ca_cert), [pki.PROXY_NAME]
        if proxies:
            data["requestheader-client-ca-file"] = Path(proxies).read_text()
            for key, told in (
                ("allowed-names", names),
                ("extra-headers-prefix", options.requestheader_extra_headers_prefix),
                ("group-headers", options.requestheader_group_headers),
                ("uid-headers", options.requestheader_uid_headers),
                ("username-headers", options.requestheader_username_headers),
            ):
                data[f"requestheader-{key}"] = json.dumps(list(told))
        return data

    @property
    def advertised(self) -> str:
        """host:port as discovery tells it."""
        host = self._options.external_hostname or self._options.advertise_address
        return f"{host}:{self.url.rpartition(':')[2]}" if host else self.url.partition("://")[2]

    def write_kubeconfig(self, path: Path) -> None:
        """Credentials of an administrator. Raises ValueError when there are no certificates of our own."""
        if self._pki is None:
            raise ValueError("a kubeconfig needs the client certificate that is made in cert-dir")
        authority = Path(self.ca_file)
        pki.write_kubeconfig(
            path, self.url, ca_file=authority, cert_file=self._pki.admin_cert, key_file=self._pki.admin_key
        )

    def close(self) -> None:
        if self._reserved is not None:
            self._reserved.close()
        for listener in self._open:
            listener.close()
        self._open.clear()
        if self._options.unix_socket:
            Path(self._options.unix_socket).unlink(missing_ok=True)


def certificate_names(options: ServerOptions) -> list[str]:
    """What the server's own certificate is for."""
    more = (options.bind_address, options.advertise_address, options.external_hostname)
    return pki.server_names(*more, service_cluster_ip_range=options.service_cluster_ip_range)


def signing_key(options: ServerOptions) -> Callable[[], Path]:
    """What gives the key that signs ServiceAccount tokens, made if it is to be our own; ValueError without a place."""
    if options.service_account_signing_key_file:
        return partial(Path, options.service_account_signing_key_file)
    if not options.cert_dir:
        raise ValueError("service-account-signing-key-file: must be given when cert-dir is not")
    return partial(pki.service_account_key, Path(options.cert_dir))


def _port(listener: asyncio.AbstractServer) -> int:
    port: int = listener.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    return port


def _bind_unix(path: Path) -> socket.socket:
    """The socket is its owner's alone; whoever may open it is asked for credentials all the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    unix = socket.socket(socket.AF_UNIX)
    try:
        unix.bind(str(path))
        path.chmod(0o600)
    except BaseException:
        unix.close()
        raise
    return unix
