"""`fastkube scheduler explain` and `simulate`: from files or a server to text. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from fastkube.api.documents import read_files
from fastkube.client import Client
from fastkube.scheduler import config as configs
from fastkube.scheduler import explain as explaining
from fastkube.scheduler import simulate as simulating
from fastkube.scheduler import snapshot
from fastkube.scheduler.config import SchedulerConfig
from fastkube.scheduler.offline import OfflineScheduler

Object = dict[str, Any]


async def _cluster(paths: Sequence[str], kubeconfig: str | None) -> list[Object]:
    if paths:
        return read_files(paths)
    if not kubeconfig:
        raise ValueError("a cluster is needed: --cluster FILE or --kubeconfig FILE")
    async with Client.from_kubeconfig(kubeconfig) as client:
        return await snapshot.read_server(client)


def _config(path: str | None) -> SchedulerConfig | None:
    return configs.load(path) if path else None


async def explain(
    pod: str,
    *,
    namespace: str,
    kubeconfig: str | None,
    cluster: Sequence[str],
    scheduler_config: str | None,
    limit: int,
    output: str,
) -> str:
    """Raises ApiError, OSError and ValueError."""
    objects = await _cluster(cluster, kubeconfig)
    if pod.endswith((".yaml", ".yml", ".json")):
        wanted = snapshot.pods_of(read_files([pod]))[0]
    else:
        wanted = _named(objects, namespace, pod)
    others = [obj for obj in objects if obj is not wanted]
    scheduler = OfflineScheduler(others, _config(scheduler_config))
    unplaced = {key: value for key, value in wanted["spec"].items() if key != "nodeName"}
    metadata = {"namespace": namespace, **wanted["metadata"]}
    parsed = scheduler.cache.parse({**wanted, "metadata": metadata, "spec": unplaced})
    if parsed.spec.scheduler_name not in scheduler.profiles:
        raise ValueError(f"pod {parsed.key} is for the scheduler {parsed.spec.scheduler_name!r}, which is not this one")
    told = explaining.explain(scheduler, parsed)
    return explaining.table(told, limit) if output == "table" else _json(told.to_object())


def _named(objects: Sequence[Object], namespace: str, name: str) -> Object:
    for obj in objects:
        metadata = obj["metadata"]
        if obj["kind"] == "Pod" and (metadata.get("namespace") or "default", metadata["name"]) == (namespace, name):
            return obj
    raise ValueError(f'pods "{name}" not found in namespace "{namespace}"')


async def simulate(
    *,
    kubeconfig: str | None,
    cluster: Sequence[str],
    pods: Sequence[str],
    scheduler_config: str | None,
    compare: str | None,
    preempt: bool,
    seed: int,
    limit: int,
    output: str,
) -> str:
    """Raises ApiError, OSError and ValueError."""
    objects = await _cluster(cluster, kubeconfig)
    wanted = snapshot.pods_of(read_files(pods))
    chosen = [scheduler_config, *([compare] if compare else [])]
    outcomes = [
        simulating.simulate(path or "default", objects, wanted, _config(path), seed=seed, preempt=preempt)
        for path in chosen
    ]
    if output == "json":
        return _json([outcome.to_object() for outcome in outcomes])
    return simulating.table(outcomes, limit)


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n"
