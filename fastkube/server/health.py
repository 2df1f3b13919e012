"""/healthz, /livez and /readyz: whether the server works, and whether it should be sent requests.

Each is a list of named checks. `?verbose` tells each one, `?exclude=NAME` leaves one out, and /livez/NAME is one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from fastkube.server.answer import Answer
from fastkube.server.media import TEXT

if TYPE_CHECKING:
    from fastkube.store import Store

Check = Callable[[], str]
"""What is wrong; "" is nothing."""

NOSNIFF = b"X-Content-Type-Options: nosniff\r\n"


class Health:
    """The checks of the server. `stopping` is set when it no longer wants requests."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.started = False
        self.stopping = False
        common: dict[str, Check] = {"ping": _fine, "log": _fine, "etcd": self._check_store}
        common["poststarthook/rbac/bootstrap-roles"] = self._check_started
        ready: dict[str, Check] = {"etcd-readiness": self._check_store, "informer-sync": self._check_started}
        self._endpoints: dict[str, Mapping[str, Check]] = {
            "healthz": common,
            "livez": common,
            "readyz": {**common, **ready, "shutdown": self._check_stopping},
        }

    def paths(self) -> list[str]:
        """Every path that `answer` knows."""
        return [
            path
            for endpoint, checks in self._endpoints.items()
            for path in (f"/{endpoint}", *(f"/{endpoint}/{name}" for name in checks))
        ]

    def answer(self, path: str, query: str) -> Answer | None:
        """None when it is no path of ours."""
        endpoint, _, name = path[1:].partition("/")
        checks = self._endpoints.get(endpoint)
        if checks is None or path.endswith("/"):
            return None
        if name:
            return self._single(checks, name)
        asked = parse_qsl(query, keep_blank_values=True)
        excluded = {value for key, value in asked if key == "exclude"}
        verbose = any(key == "verbose" for key, _ in asked)
        return self._whole(endpoint, checks, excluded, verbose)

    def _single(self, checks: Mapping[str, Check], name: str) -> Answer | None:
        if name not in checks:
            return None
        problem = checks[name]()
        if problem:
            return _text(500, f"internal server error: {problem}\n")
        answer = _text(200, "ok")
        answer.headers = b""
        return answer

    def _whole(self, endpoint: str, checks: Mapping[str, Check], excluded: set[str], verbose: bool) -> Answer:
        lines, failed = [], []
        for name, check in checks.items():
            if name in excluded:
                lines.append(f"[+]{name} excluded: ok\n")
            elif check():
                failed.append(name)
                lines.append(f"[-]{name} failed: reason withheld\n")
            else:
                lines.append(f"[+]{name} ok\n")
        unknown = sorted(excluded - set(checks))
        if unknown:
            told = " ".join(f'"{name}"' for name in unknown)
            lines.append(f"warn: some health checks cannot be excluded: no matches for {told}\n")
        if failed:
            return _text(500, "".join(lines) + f"{endpoint} check failed\n")
        return _text(200, "".join(lines) + f"{endpoint} check passed\n" if verbose else "ok")

    def _check_store(self) -> str:
        status = self._store.status()
        return "" if status.health == "serving" else f"store: {status.reason or status.health}"

    def _check_started(self) -> str:
        return "" if self.started else "not finished"

    def _check_stopping(self) -> str:
        return "process is shutting down" if self.stopping else ""


def _fine() -> str:
    return ""


def _text(code: int, text: str) -> Answer:
    answer = Answer(code, text.encode(), TEXT, NOSNIFF)
    answer.compressible = False
    return answer
