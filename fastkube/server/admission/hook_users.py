"""Who this server is for webhooks: the users of a kubeconfig, each named after the hosts that it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fastkube.client.kubeconfig import Connection, TokenSource, load_users, present

if TYPE_CHECKING:
    import ssl

    from fastkube.clock import Clock

_HTTPS = 443


class HookUser(NamedTuple):
    connection: Connection
    tokens: TokenSource

    def show_to(self, context: ssl.SSLContext) -> None:
        """Sets the client certificate, if there is one; raises ConfigError."""
        present(context, self.connection)


class HookUsers:
    """Raises ConfigError for a kubeconfig that cannot be used."""

    def __init__(self, path: str, clock: Clock) -> None:
        users, current = load_users(path)
        self._users = {name: HookUser(one, TokenSource(one, clock)) for name, one in users.items()}
        self._current = self._users.get(current)

    def for_host(self, host: str, port: int) -> HookUser | None:
        """The user for exactly this host and port, for its domain, without the port where it is 443, for all; or else
        the one of the current context."""
        for target in (f"{host}:{port}", *([host] if port == _HTTPS else [])):
            steps = target.split(".")
            names = [target, *("*." + ".".join(steps[number:]) for number in range(1, len(steps)))]
            for name in names:
                if name in self._users:
                    return self._users[name]
        return self._users.get("*", self._current)
