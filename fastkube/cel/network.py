"""Kubernetes' libraries url, ip and cidr. Opaque values carry the name of their type as `cel_type`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

from fastkube.cel.errors import EvalError
from fastkube.cel.functions import function, method, succeeds


class Url:
    cel_type: ClassVar[str] = "kubernetes.URL"
    __slots__ = ("parts", "text")

    def __init__(self, text: str, parts: SplitResult) -> None:
        self.text = text
        self.parts = parts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Url) and self.text == other.text

    __hash__ = None  # type: ignore[assignment]


_BAD_URL = re.compile(r"[\x00-\x20\x7f]|%(?![0-9A-Fa-f]{2})")
_has_scheme = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:").match


def parse_url(text: str) -> Url:
    """A URL with a scheme, or a path that begins with a slash (Go's ParseRequestURI); raises EvalError."""
    try:
        if not text or _BAD_URL.search(text.replace(" ", "%20", 0)):
            raise ValueError
        if not text.startswith("/") and not _has_scheme(text):
            raise ValueError
        parts = urlsplit(text)
        if parts.scheme and not parts.netloc and not parts.path.startswith("/"):
            raise ValueError
        _ = parts.port
    except ValueError:
        raise EvalError(
            f'URL parse error during conversion from string: parse "{text}": invalid URI for request'
        ) from None
    return Url(text, parts)


def _host(url: Url) -> str:
    return url.parts.netloc.rpartition("@")[2]


def _hostname(url: Url) -> str:
    host = _host(url)
    if host.startswith("["):
        return host[1 : host.index("]")] if "]" in host else host
    return host.partition(":")[0]


def _port(url: Url) -> str:
    host = _host(url)
    tail = host[host.index("]") + 1 :] if host.startswith("[") and "]" in host else host
    return tail.rpartition(":")[2] if ":" in tail else ""


def _escaped_path(url: Url) -> str:
    return quote(url.parts.path, safe="/%:@!$&'()*+,;=~-._")


URLS = (
    function("url", "string -> kubernetes.URL", parse_url),
    function("isURL", "string -> bool", succeeds(parse_url)),
    method("getScheme", "kubernetes.URL -> string", lambda url: url.parts.scheme),
    method("getHost", "kubernetes.URL -> string", _host),
    method("getHostname", "kubernetes.URL -> string", _hostname),
    method("getPort", "kubernetes.URL -> string", _port),
    method("getEscapedPath", "kubernetes.URL -> string", _escaped_path),
    method("getQuery", "kubernetes.URL -> map(string, list(string))", lambda url: parse_qs(url.parts.query, True)),
)

# ---------------------------------------------------------------- ip, cidr


@dataclass(frozen=True, slots=True)
class Ip:
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    cel_type: ClassVar[str] = "net.IP"


@dataclass(frozen=True, slots=True)
class Cidr:
    """A network with the address that it was written with."""

    network: ipaddress.IPv4Interface | ipaddress.IPv6Interface
    cel_type: ClassVar[str] = "net.CIDR"


def parse_ip(text: str) -> Ip:
    """An address without a zone that is not an IPv4 one mapped to IPv6; raises EvalError."""
    if "%" in text:
        raise EvalError("IP Address with zone value is not allowed")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        told = f'ParseAddr("{text}"): unable to parse IP'
        raise EvalError(f"IP Address parse error during conversion from string: {told}") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            raise EvalError("IPv4-mapped IPv6 address is not allowed")
        if "." in text:
            raise EvalError("IPv4-mapped IPv6 address is not allowed")
    return Ip(address)


def parse_cidr(text: str) -> Cidr:
    address, slash, bits = text.partition("/")
    try:
        if not slash or not bits.isdecimal() or (len(bits) > 1 and bits[0] == "0"):
            raise ValueError
        parse_ip(address)
        return Cidr(ipaddress.ip_interface(text))
    except ValueError:
        told = f"netip.ParsePrefix(\"{text}\"): no '/'" if not slash else f'netip.ParsePrefix("{text}")'
        raise EvalError(f"network address parse error during conversion from string: {told}") from None


def _is_link_local_multicast(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address in _LINK_LOCAL_4
    return address.is_multicast and address.packed[1] & 0x0F == 2


_LINK_LOCAL_4 = ipaddress.IPv4Network("224.0.0.0/24")


def _is_global_unicast(ip: Ip) -> bool:
    at = ip.address
    broadcast = at == ipaddress.IPv4Address("255.255.255.255")
    return not (broadcast or at.is_unspecified or at.is_loopback or at.is_multicast or at.is_link_local)


def _is_canonical(text: str) -> bool:
    return str(parse_ip(text).address) == text


def _contains_ip(cidr: Cidr, ip: Ip) -> bool:
    return cidr.network.version == ip.address.version and ip.address in cidr.network.network


def _contains_cidr(cidr: Cidr, other: Cidr) -> bool:
    inside, outside = other.network.network, cidr.network.network
    return inside.version == outside.version and inside.subnet_of(outside)  # type: ignore[arg-type]


ADDRESSES = (
    function("ip", "string -> net.IP", parse_ip),
    function("isIP", "string -> bool", succeeds(parse_ip)),
    function("ip.isCanonical", "string -> bool", _is_canonical),
    function("string", "net.IP -> string", lambda ip: str(ip.address)),
    method("family", "net.IP -> int", lambda ip: ip.address.version),
    method("isUnspecified", "net.IP -> bool", lambda ip: ip.address.is_unspecified),
    method("isLoopback", "net.IP -> bool", lambda ip: ip.address.is_loopback),
    method("isLinkLocalMulticast", "net.IP -> bool", lambda ip: _is_link_local_multicast(ip.address)),
    method("isLinkLocalUnicast", "net.IP -> bool", lambda ip: ip.address.is_link_local),
    method("isGlobalUnicast", "net.IP -> bool", _is_global_unicast),
    function("cidr", "string -> net.CIDR", parse_cidr),
    function("isCIDR", "string -> bool", succeeds(parse_cidr)),
    function("string", "net.CIDR -> string", lambda cidr: str(cidr.network)),
    method("containsIP", "net.CIDR, string -> bool", lambda cidr, text: _contains_ip(cidr, parse_ip(text))),
    method("containsIP", "net.CIDR, net.IP -> bool", _contains_ip),
    method("containsCIDR", "net.CIDR, string -> bool", lambda cidr, text: _contains_cidr(cidr, parse_cidr(text))),
    method("containsCIDR", "net.CIDR, net.CIDR -> bool", _contains_cidr),
    method("ip", "net.CIDR -> net.IP", lambda cidr: Ip(cidr.network.ip)),
    method("prefixLength", "net.CIDR -> int", lambda cidr: cidr.network.network.prefixlen),
    method("masked", "net.CIDR -> net.CIDR", lambda cidr: Cidr(ipaddress.ip_interface(str(cidr.network.network)))),
)

OVERLOADS = (*URLS, *ADDRESSES)
