"""DefaultBinder: binds a Pod by POST to its binding subresource."""

from __future__ import annotations

from fastkube.scheduler.framework import Plugin
from fastkube.scheduler.pods import PodInfo


class DefaultBinder(Plugin):
    name = "DefaultBinder"

    async def bind(self, pod: PodInfo, node: str) -> None:
        """Raises ApiError."""
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
            "target": {"kind": "Node", "name": node},
        }
        await self.handle.client.create(
            "v1/pods", binding, pod.namespace, name=pod.name, subresource="binding", brief=True
        )
