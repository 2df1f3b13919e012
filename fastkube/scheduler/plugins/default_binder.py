"""DefaultBinder: binds a Pod by POST to its binding subresource."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastkube.errors import ApiError
from fastkube.scheduler.framework import Plugin
from fastkube.scheduler.pods import PodInfo


class DefaultBinder(Plugin):
    name = "DefaultBinder"

    async def bind(self, pod: PodInfo, node: str) -> None:
        """Raises ApiError."""
        await self.handle.client.create(
            "v1/pods", _binding(pod, node), pod.namespace, name=pod.name, subresource="binding", brief=True
        )

    def bind_nowait(self, pod: PodInfo, node: str, answered: Callable[[ApiError | None], None]) -> None:
        """The same for one of many: `answered` is called with the error or None."""
        self.handle.client.create_nowait(
            "v1/pods", _binding(pod, node), pod.namespace, name=pod.name, subresource="binding", answered=answered
        )


def _binding(pod: PodInfo, node: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
        "target": {"kind": "Node", "name": node},
    }
