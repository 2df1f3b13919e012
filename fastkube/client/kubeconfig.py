"""Where a server is and who asks: from a kubeconfig file, from a Pod's service account, or given outright.

Source: the kubeconfig format (client.authentication and clientcmd of the Kubernetes API). What this client does not do
(exec plugins, auth providers, proxies) is refused by name when a kubeconfig asks for it.
"""

from __future__ import annotations

import base64
import math
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastkube.client.transport import Endpoint, tls_context
from fastkube.clock import Clock

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_REREAD_S = 60.0


class ConfigError(ValueError):
    """A kubeconfig or connection option that cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Connection:
    """`server` is a URL or `unix:///path`; certificates are PEM bytes; a `token_file` is read again as it rotates."""

    server: str
    token: str = ""
    token_file: str = ""
    ca: bytes = b""
    cert: bytes = b""
    key: bytes = b""
    server_name: str = ""
    insecure: bool = False
    namespace: str = "default"

    def endpoint(self) -> Endpoint:
        """The address with its TLS context; raises ConfigError."""
        url = urlsplit(self.server)
        if url.scheme == "unix":
            return Endpoint("localhost", 0, unix_path=url.path)
        if url.scheme not in ("http", "https"):
            raise ConfigError(f"a server is named by an http, https or unix URL, not {self.server!r}")
        if not url.hostname:
            raise ConfigError(f"the server URL {self.server!r} has no host")
        port = url.port or (443 if url.scheme == "https" else 80)
        tls = self._tls() if url.scheme == "https" else None
        return Endpoint(url.hostname, port, tls=tls, server_name=self.server_name)

    @property
    def base_path(self) -> str:
        """The prefix of every path: servers behind a proxy have one."""
        url = urlsplit(self.server)
        return "" if url.scheme == "unix" else url.path.rstrip("/")

    def _tls(self) -> ssl.SSLContext:
        try:
            context = tls_context(self.ca, verified=not self.insecure)
            if self.cert:
                _load_chain(context, self.cert, self.key)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"the certificates for {self.server} cannot be used: {error}") from error
        return context


def _load_chain(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    """ssl takes certificates from files only: a private one, gone again at once."""
    with tempfile.NamedTemporaryFile(prefix="fastkube-", suffix=".pem") as file:
        file.write(cert + b"\n" + key)
        file.flush()
        context.load_cert_chain(file.name)


class TokenSource:
    """The bearer token of a Connection; a token file is read again every minute."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._clock = clock
        self._token = connection.token
        self._file = connection.token_file
        self._read_at = -math.inf

    def token(self) -> str:
        if self._file and self._clock.monotonic() - self._read_at > _TOKEN_REREAD_S:
            try:
                self._token = Path(self._file).read_text().strip()
            except OSError as error:
                raise ConfigError(f"the token file {self._file} cannot be read: {error}") from error
            self._read_at = self._clock.monotonic()
        return self._token


def load(path: str | os.PathLike[str], context: str | None = None) -> Connection:
    """The connection which a context (the current one, unless named) of a kubeconfig file describes."""
    file = Path(path)
    config = _read(file)
    chosen = context or config.get("current-context")
    if not chosen:
        raise ConfigError(f"the kubeconfig {file} has no current-context and none was named")
    ctx = _named(config, "contexts", chosen, "context", file)
    cluster = _named(config, "clusters", ctx.get("cluster", ""), "cluster", file)
    user = _named(config, "users", ctx["user"], "user", file) if ctx.get("user") else {}
    _check_user(user, file)
    if cluster.get("proxy-url"):
        raise ConfigError(f"the kubeconfig {file} uses proxy-url, which this client does not support")
    return Connection(
        server=str(cluster.get("server", "")),
        token=str(user.get("token") or ""),
        token_file=_relative(file, user.get("tokenFile")),
        ca=_material(file, cluster, "certificate-authority"),
        cert=_material(file, user, "client-certificate"),
        key=_material(file, user, "client-key"),
        server_name=str(cluster.get("tls-server-name") or ""),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        namespace=str(ctx.get("namespace") or "default"),
    )


def load_users(path: str | os.PathLike[str]) -> tuple[dict[str, Connection], str]:
    """The credentials of all users of a kubeconfig by their names, and the name of the current context's user."""
    file = Path(path)
    config = _read(file)
    found = {}
    for entry in config.get("users") or ():
        user = entry.get("user") or {}
        _check_user(user, file)
        found[str(entry.get("name") or "")] = Connection(
            "",
            token=str(user.get("token") or ""),
            token_file=_relative(file, user.get("tokenFile")),
            cert=_material(file, user, "client-certificate"),
            key=_material(file, user, "client-key"),
        )
    chosen = config.get("current-context")
    current = _named(config, "contexts", chosen, "context", file).get("user") if chosen else ""
    return found, str(current or "")


def present(context: ssl.SSLContext, connection: Connection) -> None:
    """Shows the connection's client certificate, if it has one; raises ConfigError."""
    if connection.cert:
        try:
            _load_chain(context, connection.cert, connection.key)
        except ssl.SSLError as error:
            raise ConfigError(f"the client certificate cannot be used: {error}") from error


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"the kubeconfig {file} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"the kubeconfig {file} is empty")
    return config


def _check_user(user: dict[str, Any], file: Path) -> None:
    for unsupported in ("exec", "auth-provider", "username", "as"):
        if user.get(unsupported):
            raise ConfigError(f"the kubeconfig {file} uses {unsupported}, which this client does not support")


def _named(config: dict[str, Any], section: str, name: str, key: str, file: Path) -> dict[str, Any]:
    for entry in config.get(section) or []:
        if entry.get("name") == name:
            found: dict[str, Any] = entry.get(key) or {}
            return found
    raise ConfigError(f"the kubeconfig {file} has no {key} named {name!r}")


def _relative(file: Path, value: Any) -> str:
    """Paths in a kubeconfig are relative to its folder."""
    return str(file.parent / value) if value else ""


def _material(file: Path, section: dict[str, Any], field: str) -> bytes:
    data = section.get(f"{field}-data")
    if data:
        return base64.b64decode(data)
    path = section.get(field)
    if not path:
        return b""
    try:
        return Path(file.parent, path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{field} of the kubeconfig {file} cannot be read: {error}") from error


def in_cluster() -> Connection:
    """The connection of a Pod's service account; ConfigError outside of a Pod."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ConfigError("not in a Pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    namespace = _SERVICE_ACCOUNT / "namespace"
    return Connection(
        server=f"https://{authority}",
        token_file=str(_SERVICE_ACCOUNT / "token"),
        ca=(_SERVICE_ACCOUNT / "ca.crt").read_bytes(),
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
    )
