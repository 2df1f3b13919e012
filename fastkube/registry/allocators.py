"""Allotting what there is only one of: cluster IPs and node ports.

What is taken is a key in the store: an IPAddress object, or a key of a node port. A key is claimed in the transaction
that writes its Service, on the condition that it is not there, so no two Services ever have the same address, however
many servers write. Memory only holds what is taken, to choose quickly, and what writes under way are about to take.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgpack

from fastkube.store import ABSENT, DELETE, Compare, Put, Write
from fastkube.store import Delete as DeleteOp

if TYPE_CHECKING:
    from fastkube.registry.strategy import Companions, Object
    from fastkube.store import Event, Store

_TRIES_MAX = 32
"""Random picks before the range is searched from its start."""


class Taken(Exception):
    """The number asked for is not to be had; the text says why, in upstream's words."""


class Exhausted(Exception):
    """Nothing is left of the range."""


class Pool:
    """Numbers that are claimed one by one: the store's keys under a prefix, and those about to be written."""

    def __init__(self, store: Store, prefix: bytes, read: Callable[[str], int | None]) -> None:
        self._prefix = prefix
        self._read = read
        self._taken: set[int] = set()
        self._pending: set[int] = set()
        end = prefix[:-1] + b"0"  # "0" follows "/"
        self._subscription = store.subscribe(prefix, end, self._on_events)
        for item in store.range(prefix, end, keys_only=True).items:
            self._note(item.key, True)

    def close(self) -> None:
        self._subscription.cancel()

    def _on_events(self, events: list[Event], revision: int) -> None:
        for event in events:
            self._note(event.key, event.type != DELETE)

    def _note(self, key: bytes, taken: bool) -> None:
        number = self._read(key[len(self._prefix) :].decode())
        if number is None:
            return
        if taken:
            self._taken.add(number)
        else:
            self._taken.discard(number)

    def is_free(self, number: int) -> bool:
        return number not in self._taken and number not in self._pending

    def pick(self, first: int, last: int, static: int) -> int:
        """A free number of first..last, at random; the lowest `static` ones only when nothing else is left.

        The low ones are for Services that name their number, which so rarely find it taken.
        """
        low = min(first + static, last)
        for _ in range(_TRIES_MAX):
            guess = random.randint(low, last)
            if self.is_free(guess):
                return guess
        for span in (range(low, last + 1), range(first, low)):
            for number in span:
                if self.is_free(number):
                    return number
        raise Exhausted

    def claim(self, companions: Companions, number: int, key: bytes, value: bytes) -> None:
        """The number is held until the write is done, and taken for good if it was."""
        self._pending.add(number)
        companions.finish.append(lambda: self._pending.discard(number))
        companions.compares.append(Compare(key, "mod", "=", 0))
        companions.ops.append(Put(key, value))


class NodePorts:
    """The node ports of a range such as 30000-32767; each has a key whose value names the Service."""

    PREFIX = b"/registry/ranges/servicenodeports/"

    def __init__(self, store: Store, first: int, last: int) -> None:
        self.first, self.last = first, last
        self._static = _static_part(last - first + 1, 32, 128)
        self._pool = Pool(store, self.PREFIX, lambda text: int(text) if text.isdigit() else None)

    def close(self) -> None:
        self._pool.close()

    def allot(self, companions: Companions, owner: str, port: int = 0) -> int:
        """Claims `port`, or any that is free. Raises Taken and Exhausted."""
        if port:
            if not self.first <= port <= self.last:
                valid = f"The range of valid ports is {self.first}-{self.last}"
                raise Taken(f"provided port is not in the valid range. {valid}")
            if not self._pool.is_free(port):
                raise Taken("provided port is already allocated")
        else:
            port = self._pool.pick(self.first, self.last, self._static)
        self._pool.claim(companions, port, self._key(port), owner.encode())
        return port

    def is_free(self, port: int) -> bool:
        return self._pool.is_free(port)

    def release(self, companions: Companions, port: int) -> None:
        companions.ops.append(DeleteOp(self._key(port)))

    def note(self, owner: str, port: int) -> Write | None:
        """What is to be written for a port that a Service has; None where it is known."""
        return Write(self._key(port), owner.encode(), ABSENT) if self._pool.is_free(port) else None

    def _key(self, port: int) -> bytes:
        return self.PREFIX + str(port).encode()


class ClusterIps:
    """The addresses of the service CIDRs: the configured one, and those that ServiceCIDR objects add."""

    PREFIX = b"/registry/networking.k8s.io/ipaddresses/"
    CIDR_PREFIX = b"/registry/networking.k8s.io/servicecidrs/"

    def __init__(self, store: Store, cidr: str) -> None:
        self.network = _parse_network(cidr)
        self._store = store
        self._pool = Pool(store, self.PREFIX, _parse_address)

    def close(self) -> None:
        self._pool.close()

    def allot(
        self, companions: Companions, make: Callable[[str], Object], address: str = "", dry_run: bool = False
    ) -> str:
        """Claims `address`, or any that is free, for the IPAddress that `make` returns. Raises Taken and Exhausted."""
        number = self._check(address, dry_run) if address else self._pick()
        text = str(ipaddress.IPv4Address(number))
        self._pool.claim(companions, number, self.PREFIX + text.encode(), msgpack.packb(make(text)))
        return text

    def _check(self, address: str, dry_run: bool) -> int:
        """A dry run does not look at what is taken, nor at which range is the address's own, in upstream neither."""
        number = _parse_address(address)
        networks = self._networks()
        parsed = ipaddress.IPv4Address(number) if number is not None else None
        if number is None or parsed is None or not any(_is_host(parsed, network) for network in networks):
            around = [network for network in networks if parsed is not None and (dry_run or parsed in network)]
            if not around:
                raise Taken("the provided network does not match the current range")
            valid = ", ".join(map(str, around))
            raise Taken(f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {valid}")
        if not dry_run and not self._pool.is_free(number):
            raise Taken("provided IP is already allocated")
        return number

    def _pick(self) -> int:
        for network in self._networks():
            first, last = int(network[1]), int(network[-1]) - 1
            try:
                return self._pool.pick(first, max(first, last), _static_part(network.num_addresses, 16, 256))
            except Exhausted:
                continue
        raise Exhausted

    def _networks(self) -> list[ipaddress.IPv4Network]:
        """Ready CIDRs; asked for only when a Service gets an address, so they are read from the store each time."""
        networks = [self.network]
        prefix = self.CIDR_PREFIX
        for item in self._store.range(prefix, prefix[:-1] + b"0").items:
            cidr: Object = msgpack.unpackb(item.value)
            if "deletionTimestamp" in cidr["metadata"] or not _is_ready(cidr):
                continue
            for text in cidr["spec"].get("cidrs") or ():
                network = ipaddress.ip_network(text)
                if isinstance(network, ipaddress.IPv4Network) and network not in networks:
                    networks.append(network)
        return networks

    def release(self, companions: Companions, address: str) -> None:
        companions.ops.append(DeleteOp(self.PREFIX + address.encode()))


def first_address(cidr: str) -> str:
    """The address of the Service `kubernetes`. Raises ValueError for what is no service CIDR."""
    return str(_parse_network(cidr)[1])


def _static_part(size: int, share: int, most: int) -> int:
    """How many numbers of a range are kept for those who name them; none of a small range."""
    return min(max(16, size // share), most) if size > 16 else 0


def _is_host(address: ipaddress.IPv4Address, network: ipaddress.IPv4Network) -> bool:
    return address in network and address not in (network.network_address, network.broadcast_address)


def _is_ready(cidr: Object) -> bool:
    conditions = (cidr.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _parse_address(text: str) -> int | None:
    try:
        return int(ipaddress.IPv4Address(text))
    except ValueError:
        return None


def _parse_network(cidr: str) -> ipaddress.IPv4Network:
    """Raises ValueError, naming the flag, for what is no IPv4 network with room for Services."""
    try:
        network = ipaddress.IPv4Network(cidr)
    except ValueError as problem:
        raise ValueError(f"service-cluster-ip-range: {problem}") from None
    if network.num_addresses < 8:
        raise ValueError(f"service-cluster-ip-range: {cidr} has fewer than 8 addresses")
    return network
