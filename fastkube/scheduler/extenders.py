"""Extenders: HTTP servers that are asked about a Pod's nodes besides the plugins (kube-scheduler's extender/v1 API).

    filter       POST {pod, nodes | nodenames}  → those that remain, and why the others were refused
    prioritize   POST {pod, nodes | nodenames}  → [{host, score 0 to 10}], times the extender's weight
    preempt      POST {pod, node name → victims} → node name → victims that the extender agrees to
    bind         POST {podName, podNamespace, podUID, node}

An extender is asked only about Pods which request a resource that it manages, or about all where it manages none.
With `nodeCacheCapable` only names of nodes are sent. A failure of an extender that is not `ignorable` fails the
attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from fastkube.client import Client
from fastkube.client.kubeconfig import Connection
from fastkube.errors import ApiError
from fastkube.scheduler.config import ExtenderConfig, TLSConfig
from fastkube.scheduler.nodes import NodeInfo
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.preemption import Victims

log = logging.getLogger(__name__)

Object = dict[str, Any]

PLUGIN = "Extender"
"""The name under which extenders are blamed."""
SCORE_FACTOR = 10
"""Extenders score from 0 to 10, plugins from 0 to 100."""
CONNECTIONS_MAX = 16


class ExtenderError(Exception):
    """An extender did not answer, or answered with an error."""


class Filtered(NamedTuple):
    """What an extender left of the nodes; the others by name, with its reasons."""

    names: list[str]
    failed: dict[str, str]
    unresolvable: dict[str, str]


class HTTPExtender:
    """One extender of the configuration."""

    def __init__(self, config: ExtenderConfig) -> None:
        self.config = config
        self.url = config.url_prefix
        self._managed = frozenset(name for name, _ in config.managed_resources)
        self._client = Client(_connection(config), codec="json", pool_size=CONNECTIONS_MAX, timeout_s=config.timeout_s)

    async def close(self) -> None:
        await self._client.close()

    def is_interested(self, pod: PodInfo) -> bool:
        """Whether the Pod requests or limits a resource that the extender manages."""
        if not self._managed:
            return True
        spec = pod.pod["spec"]
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
            told = container.get("resources") or {}
            for kind in ("requests", "limits"):
                if not self._managed.isdisjoint(told.get(kind) or ()):
                    return True
        return False

    async def filter(self, pod: PodInfo, nodes: Sequence[NodeInfo]) -> Filtered:
        """Raises ExtenderError."""
        answer: Object = await self._send(self.config.filter_verb, self._about(pod, nodes))
        if answer.get("error"):
            raise ExtenderError(str(answer["error"]))
        known = {node.name for node in nodes}
        if self.config.node_cache_capable and answer.get("nodenames") is not None:
            names = [str(name) for name in answer["nodenames"]]
            strange = next((name for name in names if name not in known), None)
            if strange is not None:
                raise ExtenderError(
                    f'extender "{self.url}" claims a filtered node "{strange}" which is not found in the input node '
                    "list"
                )
        elif answer.get("nodes") is not None:
            names = [each["metadata"]["name"] for each in answer["nodes"].get("items") or ()]
        else:
            names = []
        return Filtered(
            [name for name in names if name in known],
            dict(answer.get("failedNodes") or {}),
            dict(answer.get("failedAndUnresolvableNodes") or {}),
        )

    async def prioritize(self, pod: PodInfo, nodes: Sequence[NodeInfo]) -> dict[str, int]:
        """Node name → score, weighted; raises ExtenderError."""
        answer: list[Object] = await self._send(self.config.prioritize_verb, self._about(pod, nodes))
        return {each["host"]: int(each["score"]) * self.config.weight for each in answer or ()}

    async def preempt(self, pod: PodInfo, candidates: Mapping[str, Victims]) -> dict[str, Victims]:
        """The candidates that the extender agrees to, with the victims that it leaves; raises ExtenderError."""
        body: Object = {"pod": _whole(pod)}
        if self.config.node_cache_capable:
            body["nodeNameToMetaVictims"] = {
                name: {"pods": [{"uid": each.uid} for each in found.pods], "numPDBViolations": found.violations}
                for name, found in candidates.items()
            }
        else:
            body["nodeNameToVictims"] = {
                name: {"pods": [_whole(each) for each in found.pods], "numPDBViolations": found.violations}
                for name, found in candidates.items()
            }
        answer: Object = await self._send(self.config.preempt_verb, body)
        agreed = {}
        for name, told in (answer.get("nodeNameToMetaVictims") or {}).items():
            found = candidates.get(name)
            if found is None:
                raise ExtenderError(f'nodeinfo not found for node name "{name}"')
            uids = [each.get("uid") for each in told.get("pods") or ()]
            on_node = found.node.pods
            missing = next((uid for uid in uids if uid not in on_node), None)
            if missing is not None:
                raise ExtenderError(
                    f"extender: {self.url} claims to preempt pod (UID: &{{{missing}}}) on node: {name}, but the pod is "
                    "not found on that node"
                )
            victims = tuple(on_node[uid] for uid in uids)
            agreed[name] = Victims(found.node, victims, int(told.get("numPDBViolations") or 0))
        return agreed

    async def bind(self, pod: PodInfo, node: str) -> None:
        """Raises ExtenderError."""
        body = {"podName": pod.name, "podNamespace": pod.namespace, "podUID": pod.uid, "node": node}
        answer: Object = await self._send(self.config.bind_verb, body)
        if answer.get("error"):
            raise ExtenderError(str(answer["error"]))

    def _about(self, pod: PodInfo, nodes: Sequence[NodeInfo]) -> Object:
        if self.config.node_cache_capable:
            return {"pod": _whole(pod), "nodes": None, "nodenames": [node.name for node in nodes]}
        items = [node.node for node in nodes]
        told = {"apiVersion": "v1", "kind": "NodeList", "metadata": {}, "items": items}
        return {"pod": _whole(pod), "nodes": told, "nodenames": None}

    async def _send(self, verb: str, body: Object) -> Any:
        path = f"/{verb}"
        url = f"{self.url.rstrip('/')}{path}"
        try:
            response = await self._client.raw("POST", path, orjson.dumps(body), content_type="application/json")
        except ApiError as error:
            raise ExtenderError(f"failed {verb} with extender at URL {url}: {error.message}") from error
        if response.status != 200:
            raise ExtenderError(f"failed {verb} with extender at URL {url}, code {response.status}")
        try:
            return orjson.loads(response.body)
        except ValueError as error:
            raise ExtenderError(f"failed {verb} with extender at URL {url}: {error}") from error


def _whole(pod: PodInfo) -> Object:
    return {"apiVersion": "v1", "kind": "Pod", **pod.pod}


def _connection(config: ExtenderConfig) -> Connection:
    """Raises OSError for files that cannot be read."""
    url = config.url_prefix
    if "://" not in url:
        url = f"{'https' if config.enable_https else 'http'}://{url}"
    tls = config.tls
    if tls is None:
        return Connection(url, insecure=config.enable_https)
    ca = _pem(tls, "ca")
    return Connection(
        url,
        ca=ca,
        cert=_pem(tls, "cert"),
        key=_pem(tls, "key"),
        server_name=tls.server_name,
        # with enableHTTPS upstream does not check certificates that nobody told it how to check
        insecure=tls.insecure or (config.enable_https and not ca),
    )


def _pem(tls: TLSConfig, name: str) -> bytes:
    path: str = getattr(tls, f"{name}_file")
    data: bytes = getattr(tls, f"{name}_data")
    return Path(path).read_bytes() if path else data


class Extenders:
    """All extenders of a scheduler, in their order."""

    def __init__(self, configs: Sequence[ExtenderConfig]) -> None:
        """Ignorable ones are asked last."""
        self._all = [HTTPExtender(each) for each in sorted(configs, key=lambda each: each.ignorable)]

    async def close(self) -> None:
        for extender in self._all:
            await extender.close()

    def about(self, pod: PodInfo) -> list[HTTPExtender]:
        """Those that want to be asked about a Pod."""
        return [extender for extender in self._all if extender.is_interested(pod)]

    async def bind(self, pod: PodInfo, node: str) -> bool:
        """Whether one of them has bound the Pod instead of the bind plugins; raises ExtenderError."""
        for extender in self.about(pod):
            if not extender.config.bind_verb:
                continue
            try:
                await extender.bind(pod, node)
            except ExtenderError as error:
                if not extender.config.ignorable:
                    raise
                log.warning("extender %s is passed over: %s", extender.url, error)
                continue
            return True
        return False

    async def filter(self, pod: PodInfo, nodes: list[NodeInfo]) -> Filtered:
        """What all of them leave; raises ExtenderError."""
        names = [node.name for node in nodes]
        by_name = {node.name: node for node in nodes}
        failed: dict[str, str] = {}
        unresolvable: dict[str, str] = {}
        for extender in self.about(pod):
            if not extender.config.filter_verb or not names:
                continue
            try:
                found = await extender.filter(pod, [by_name[name] for name in names])
            except ExtenderError as error:
                if not extender.config.ignorable:
                    raise
                log.warning("extender %s is passed over: %s", extender.url, error)
                continue
            names = found.names
            unresolvable |= found.unresolvable
            failed |= {name: told for name, told in found.failed.items() if name not in found.unresolvable}
        return Filtered(names, failed, unresolvable)

    async def scores(self, pod: PodInfo, nodes: Sequence[NodeInfo]) -> dict[str, int]:
        """Node name → what the extenders add to its score. One that fails adds nothing."""
        total: dict[str, int] = {}
        for extender in self.about(pod):
            if not extender.config.prioritize_verb:
                continue
            try:
                told = await extender.prioritize(pod, nodes)
            except ExtenderError as error:
                log.warning("extender %s did not score for pod %s: %s", extender.url, pod.key, error)
                continue
            for name, score in told.items():
                total[name] = total.get(name, 0) + score * SCORE_FACTOR
        return total

    async def preempt(self, pod: PodInfo, candidates: Mapping[str, Victims]) -> dict[str, Victims]:
        """The candidates that all of them agree to; raises ExtenderError."""
        left = dict(candidates)
        for extender in self.about(pod):
            if not extender.config.preempt_verb or not left:
                continue
            try:
                agreed = await extender.preempt(pod, left)
            except ExtenderError as error:
                if not extender.config.ignorable:
                    raise
                log.warning("extender %s is passed over: %s", extender.url, error)
                continue
            spared = next((name for name, found in agreed.items() if not found.pods), None)
            if spared is not None and not extender.config.ignorable:
                raise ExtenderError(f'expected at least one victim pod on node "{spared}"')
            left = {name: found for name, found in agreed.items() if found.pods}
        return left
