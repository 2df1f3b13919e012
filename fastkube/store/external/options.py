"""What a server can be told of the etcd cluster that keeps its objects: flags of kube-apiserver, by their names."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from fastkube.config import option

_SCHEME = "etcd://"
JSON, PROTOBUF = "application/json", "application/vnd.kubernetes.protobuf"


class Endpoint(NamedTuple):
    host: str
    port: int
    secure: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class EtcdOptions:
    """Without servers the store is fastkube's own."""

    storage: str = option("", "etcd://HOST:PORT,...: keep everything in this etcd cluster; by default here.")
    etcd_servers: tuple[str, ...] = option((), "URLs of the etcd cluster: the same as --storage, in upstream's words.")
    etcd_prefix: str = option("/registry", "What all keys in etcd begin with.")
    etcd_cafile: str = option("", "Authority of the etcd servers' certificates.", metavar="FILE")
    etcd_certfile: str = option("", "Client certificate for etcd.", metavar="FILE")
    etcd_keyfile: str = option("", "Key of the client certificate for etcd.", metavar="FILE")
    storage_media_type: str = option(JSON, "How objects are written to etcd; both are read.", choices=(JSON, PROTOBUF))

    @property
    def enabled(self) -> bool:
        return bool(self.storage or self.etcd_servers)

    @property
    def endpoints(self) -> list[Endpoint]:
        """Raises ValueError, naming the flag."""
        found = [_endpoint("etcd-servers", url, url.startswith("https://")) for url in self.etcd_servers]
        if self.storage:
            if not self.storage.startswith(_SCHEME):
                raise ValueError(f"storage: {self.storage!r} does not begin with {_SCHEME}")
            secure = bool(self.etcd_cafile or self.etcd_certfile)
            hosts = self.storage.removeprefix(_SCHEME).rstrip("/").split(",")
            found += [_endpoint("storage", f"{_SCHEME}{host}", secure) for host in hosts]
        return found

    def validate(self) -> None:
        """Raises ValueError, naming the flag."""
        if not self.enabled:
            return
        if self.storage and self.etcd_servers:
            raise ValueError("storage, etcd-servers: only one of them may be given")
        if not self.endpoints:
            raise ValueError("etcd-servers: at least one must be given")
        if bool(self.etcd_certfile) != bool(self.etcd_keyfile):
            raise ValueError("etcd-certfile and etcd-keyfile: either both or none must be given")
        if not self.etcd_prefix.strip("/"):
            raise ValueError("etcd-prefix: must not be empty")

    @property
    def prefix(self) -> bytes:
        """With one slash on either side."""
        return f"/{self.etcd_prefix.strip('/')}/".encode()

    def context(self) -> ssl.SSLContext | None:
        """Of TLS towards servers that speak it. Raises OSError for files that cannot be read."""
        if not any(each.secure for each in self.endpoints):
            return None
        context = ssl.create_default_context(cafile=self.etcd_cafile or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        if self.etcd_certfile:
            context.load_cert_chain(self.etcd_certfile, self.etcd_keyfile)
        return context


def _endpoint(flag: str, url: str, secure: bool) -> Endpoint:
    if "://" not in url:
        raise ValueError(f"{flag}: {url!r} is no URL")
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as problem:
        raise ValueError(f"{flag}: {url!r}: {problem}") from None
    if parts.scheme not in ("http", "https", "etcd") or not host or parts.path.strip("/"):
        raise ValueError(f"{flag}: {url!r} is no http or https URL of an etcd server")
    return Endpoint(host, port or 2379, secure)
