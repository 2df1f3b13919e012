"""Requests: create, get, list, patch, apply, mixed, delete, in this order on one fresh server; and wrk's opinion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bench import load, wrk
from bench.contenders import Contender
from bench.load import Result

PODS = 8000
SECONDS = 2.0
_COMMON = {"namespace": "default"}

Step = Callable[[str], None]


class Measured:
    """Collects figures of one contender and notes where the load was the limit."""

    def __init__(self, contender: Contender, step: Step) -> None:
        self.contender = contender
        self.figures: dict[str, float] = {}
        self.notes: list[str] = []
        self.details: dict[str, Any] = {}
        self.step = step

    def run(self, name: str, make: Callable[..., Iterator[bytes]], connections: int, **arguments: Any) -> Result:
        """One phase; its rate, p50, p99 and CPU are figures `name`, `name_p50`, ..., as far as they are known."""
        self.step(name.replace("_", " "))
        before = self.contender.cpu_s()
        result = load.run(self.contender.target, make, connections=connections, **_COMMON, **arguments)
        used = self.contender.cpu_s() - before
        count = max(1, len(result.latencies))
        self.details[name] = {**result.summary(), "server_cpu_us": round(used * 1e6 / count, 1)}
        if result.errors:
            raise RuntimeError(f"{name}: {result.errors} requests failed: {result.statuses}")
        if result.client_bound:
            self.notes.append(f"{name}: the load generator was at its limit; the server may be faster")
        self.figures |= {
            name: result.rate,
            f"{name}_p50": result.quantile_ms(0.5),
            f"{name}_p99": result.quantile_ms(0.99),
            f"{name}_cpu": used * 1e6 / count,
        }
        return result


def measure(contender: Contender, step: Step, *, with_wrk: bool) -> Measured:
    found = Measured(contender, step)
    pods = {"prefix": "pod", "existing": PODS}
    found.run("create", load.create_pods, 64, count=PODS, prefix="pod", scheduler="none")
    found.run("create_single", load.create_pods, 1, count=10**6, seconds=1.5, prefix="one", scheduler="none")
    found.run("get", load.get_pods, 32, count=10**6, seconds=SECONDS, **pods)
    _list(found)
    found.run("patch", load.patch_pods, 32, count=10**6, seconds=SECONDS, **pods)
    found.run("apply", load.apply_deployments, 64, count=10**6, seconds=SECONDS)
    found.run("mixed", load.mixed, 64, count=10**6, seconds=SECONDS, **pods)
    if with_wrk and wrk.found():
        found.step("wrk")
        found.figures["wrk_get"] = wrk.get(contender.target, "/api/v1/namespaces/default/pods/pod-0000001", 32, SECONDS)
        body = load.pod(f"wrk-{wrk.NUMBER}", "none")
        found.figures["wrk_create"] = wrk.create(contender.target, "/api/v1/namespaces/default/pods", body, 64, SECONDS)
    found.run("delete", load.delete_pods, 64, count=PODS, prefix="pod")
    return found


def _list(found: Measured) -> None:
    """Of exactly PODS Pods: the others have another prefix, so they are selected by a label."""
    result = found.run("list", load.list_pods, 1, count=7, selector="bench%3Dpod")
    found.figures["list"] = result.quantile_ms(0.5)
    found.figures["list_mb"] = result.bytes_read / len(result.latencies) / 1e6
