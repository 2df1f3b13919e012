"""Bearer tokens that a webhook knows: it is sent a TokenReview and answers with a user (upstream's protocol)."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from fastkube.registry.strategy import UserInfo
from fastkube.server.outbound import Peer, PeerError

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

_TIMEOUT_S = 30.0
_ATTEMPTS_MAX = 5
_FIRST_PAUSE_S = 0.5


class TokenWebhook:
    """`None` as an answer is: not authenticated. Failures are logged and count as that too."""

    def __init__(self, peer: Peer, version: str, audiences: tuple[str, ...]) -> None:
        self._peer = peer
        self._api_version = f"authentication.k8s.io/{version}"
        self._audiences = audiences

    async def authenticate(self, token: str) -> UserInfo | None:
        spec = {"token": token, "audiences": list(self._audiences)}
        review = {"kind": "TokenReview", "apiVersion": self._api_version, "metadata": {}, "spec": spec}
        try:
            answer = await ask(self._peer, review)
        except PeerError as problem:
            log.warning("the token webhook failed: %s", problem)
            return None
        status: dict[str, Any] = answer.get("status") or {}
        if not status.get("authenticated"):
            if status.get("error"):
                log.warning("the token webhook told of an error: %s", status["error"])
            return None
        told = status.get("audiences")
        if told and not set(told) & set(self._audiences):
            return None
        return _user(status.get("user") or {})

    async def close(self) -> None:
        await self._peer.close()


def _user(told: dict[str, Any]) -> UserInfo:
    extra = {key: list(values) for key, values in (told.get("extra") or {}).items()}
    return UserInfo(told.get("username") or "", tuple(told.get("groups") or ()), told.get("uid") or "", extra)


async def ask(peer: Peer, review: dict[str, Any], timeout_s: float = _TIMEOUT_S) -> dict[str, Any]:
    """The answer to a review; asked again, with growing pauses, while the peer fails. Raises PeerError."""
    pause_s = _FIRST_PAUSE_S
    for attempt in range(1, _ATTEMPTS_MAX + 1):
        try:
            answer = await peer.post(review, timeout_s)
            if isinstance(answer, dict):
                return answer
            raise PeerError(f"{peer.url}: the answer is no object")
        except PeerError:
            if attempt == _ATTEMPTS_MAX:
                raise
            await asyncio.sleep(pause_s)
            pause_s *= 1.5
    raise AssertionError("unreachable")
