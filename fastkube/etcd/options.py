"""What the endpoint can be told: beside an API server, or as a server of its own with etcd's flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fastkube.config import option


class EndpointOptions(NamedTuple):
    """Where to listen and how. `validate` raises ValueError."""

    urls: tuple[str, ...]
    cert_file: str = ""
    key_file: str = ""
    trusted_ca_file: str = ""
    client_cert_auth: bool = False

    def validate(self, flag: str) -> None:
        import urllib.parse

        for url in self.urls:
            parts = urllib.parse.urlsplit(url)
            try:
                port = parts.port
            except ValueError:
                port = None
            if parts.scheme not in ("http", "https") or not parts.hostname or port is None or parts.path.strip("/"):
                raise ValueError(f"{flag}: {url!r} is not a URL such as http://127.0.0.1:2379")
            if parts.scheme == "https" and not (self.cert_file and self.key_file):
                raise ValueError(f"{flag}: {url!r} needs a certificate and its key")
        if self.client_cert_auth and not self.trusted_ca_file:
            raise ValueError(f"{flag}: client certificates need the file of their authority")


@dataclass(frozen=True)
class EtcdListenOptions:
    """The etcd v3 API beside the Kubernetes API."""

    etcd_listen: tuple[str, ...] = option((), "URLs to serve the etcd v3 API at; none by default.", metavar="URL")
    etcd_listen_cert_file: str = option("", "Certificate (PEM) of the https URLs.", metavar="FILE")
    etcd_listen_key_file: str = option("", "Its key.", metavar="FILE")
    etcd_listen_trusted_ca_file: str = option("", "Authority of clients' certificates, then needed.", metavar="FILE")

    @property
    def endpoint(self) -> EndpointOptions:
        authority = self.etcd_listen_trusted_ca_file
        files = (self.etcd_listen_cert_file, self.etcd_listen_key_file, authority)
        return EndpointOptions(self.etcd_listen, *files, bool(authority))

    def validate(self) -> None:
        """Raises ValueError, naming the flag."""
        self.endpoint.validate("etcd-listen")


@dataclass(frozen=True)
class EtcdServerOptions:
    """`fastkube etcd`: etcd's flags, with etcd's meanings and defaults."""

    listen_client_urls: tuple[str, ...] = option(("http://localhost:2379",), "URLs to listen on for clients.")
    advertise_client_urls: tuple[str, ...] = option((), "This member's URLs, as clients reach it; those it listens on.")
    cert_file: str = option("", "Certificate towards clients (PEM).", metavar="FILE")
    key_file: str = option("", "Its key.", metavar="FILE")
    trusted_ca_file: str = option("", "Authority of the certificates that clients must have.", metavar="FILE")
    client_cert_auth: bool = option(False, "Clients must have a certificate of --trusted-ca-file.")
    max_request_bytes: int = option(1536 * 1024, "Largest request that is written.")
    max_txn_ops: int = option(128, "Most operations of a transaction.")
    quota_backend_bytes: int = option(0, "Data that may be kept until puts are refused; 0 for 64 GiB.")
    auto_compaction_retention_s: float = option(0.0, "Compact what is older than this, as etcd's periodic mode does.")
    watch_progress_notify_interval_s: float = option(600.0, "Between notifications of a watch that nothing happens to.")

    @property
    def endpoint(self) -> EndpointOptions:
        files = (self.cert_file, self.key_file, self.trusted_ca_file)
        return EndpointOptions(self.listen_client_urls, *files, self.client_cert_auth or bool(self.trusted_ca_file))

    def validate(self) -> None:
        """Raises ValueError, naming the flag."""
        self.endpoint.validate("listen-client-urls")
        for flag, number in (("max-request-bytes", self.max_request_bytes), ("max-txn-ops", self.max_txn_ops)):
            if number <= 0:
                raise ValueError(f"{flag}: must be more than 0")
        if self.quota_backend_bytes < 0 or self.auto_compaction_retention_s < 0:
            raise ValueError("quota-backend-bytes, auto-compaction-retention: must not be below 0")
        if self.watch_progress_notify_interval_s <= 0:
            raise ValueError("watch-progress-notify-interval: must be more than 0")
