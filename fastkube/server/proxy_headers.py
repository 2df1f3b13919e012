"""Users named by an authenticating proxy, which proves itself by a client certificate of its own authority."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from fastkube.registry.strategy import UserInfo

if TYPE_CHECKING:
    from fastkube.server.options import ServerOptions

AUTHENTICATED = "system:authenticated"


class ProxyIdentity(UserInfo):
    """Marks a connection as that of an authenticating proxy: its headers say who asks."""


class ProxyHeaders:
    """Reads the headers that the options name."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._authorities: list[Any] = []
        self._pem = b""

    def issued(self, der: bytes) -> bool:
        """Whether the proxies' authority signed the certificate (TLS has verified it against all authorities)."""
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature

        pem = Path(self._options.requestheader_client_ca_file).read_bytes()
        if pem != self._pem:  # asked once for a connection, so that the file is always followed
            self._authorities, self._pem = x509.load_pem_x509_certificates(pem), pem
        certificate = x509.load_der_x509_certificate(der)
        for authority in self._authorities:
            try:
                certificate.verify_directly_issued_by(authority)
            except (ValueError, TypeError, InvalidSignature):
                continue
            return True
        return False

    def trusts(self, common_name: str) -> bool:
        allowed = self._options.requestheader_allowed_names
        return not allowed or common_name in allowed

    def user(self, headers: Any) -> UserInfo | None:
        """None when the proxy named nobody."""
        options = self._options
        name = next((headers[key] for key in options.requestheader_username_headers if headers.get(key)), "")
        if not name:
            return None
        uid = next((headers[key] for key in options.requestheader_uid_headers if headers.get(key)), "")
        groups = [group for key in options.requestheader_group_headers for group in headers.getall(key, ())]
        if AUTHENTICATED not in groups:
            groups.append(AUTHENTICATED)
        extra: dict[str, list[str]] = {}
        for prefix in options.requestheader_extra_headers_prefix:
            for key, value in headers.items():
                if key.lower().startswith(prefix.lower()):
                    extra.setdefault(unquote(key[len(prefix) :].lower()), []).append(value)
        return UserInfo(name, tuple(groups), uid, extra)
