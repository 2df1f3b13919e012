"""What the autoscaler reads: where the metrics APIs are asked, and what their answers say.

Amounts are whole numbers of thousandths: a usage of 250m CPU is 250.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from fastkube.api import quantity, selectors
from fastkube.client.discovery import Discovery
from fastkube.config import parse_duration
from fastkube.controllers.common import Object, Objects, seconds
from fastkube.errors import ApiError

RESOURCE_METRICS = "/apis/metrics.k8s.io/v1beta1"
CUSTOM_METRICS = ("/apis/custom.metrics.k8s.io/v1beta2", "/apis/custom.metrics.k8s.io/v1beta1")
EXTERNAL_METRICS = "/apis/external.metrics.k8s.io/v1beta1"


class Unknown(Exception):
    """A metric has no value that could be used; why, is the text."""


class Sample(NamedTuple):
    """What one Pod uses, when that was measured (0: not told), and over how long."""

    value: int
    at: float = 0.0
    window_s: float = 0.0


Samples = dict[str, Sample]
"""By name of the Pod."""

# ---------------------------------------------------------------- where


def resource_path(namespace: str, selector: str) -> str:
    return f"{RESOURCE_METRICS}/namespaces/{quote(namespace)}/pods?{urlencode({'labelSelector': selector})}"


def pods_paths(namespace: str, metric: Object, selector: str) -> list[str]:
    """In the order of preference: what the first does not know the next may."""
    query = urlencode({"labelSelector": selector, **_metric_selector(metric)})
    name = quote(metric["name"], safe="")
    return [f"{root}/namespaces/{quote(namespace)}/pods/*/{name}?{query}" for root in CUSTOM_METRICS]


def object_paths(namespace: str, source: Object, discovery: Discovery) -> list[str]:
    """Raises Unknown where the kind of the described object is not served."""
    described, metric = source["describedObject"], source["metric"]
    version, kind = described.get("apiVersion") or "v1", described["kind"]
    query = urlencode(_metric_selector(metric))
    name, tail = quote(described["name"]), f"{quote(metric['name'], safe='')}{f'?{query}' if query else ''}"
    if (version, kind) == ("v1", "Namespace"):
        return [f"{root}/namespaces/{name}/metrics/{tail}" for root in CUSTOM_METRICS]
    found = discovery.by_kind(version, kind)
    if found is None:
        raise Unknown(f'no matches for kind "{kind}" in version "{version}"')
    resource = f"{found.resource.plural}.{found.resource.group}" if found.resource.group else found.resource.plural
    place = f"namespaces/{quote(namespace)}/" if found.namespaced else ""
    return [f"{root}/{place}{resource}/{name}/{tail}" for root in CUSTOM_METRICS]


def external_path(namespace: str, metric: Object) -> str:
    query = urlencode({"labelSelector": _selector_text(metric)})
    return f"{EXTERNAL_METRICS}/namespaces/{quote(namespace)}/{quote(metric['name'], safe='')}?{query}"


def _metric_selector(metric: Object) -> dict[str, str]:
    text = _selector_text(metric)
    return {"metricLabelSelector": text} if text else {}


def _selector_text(metric: Object) -> str:
    return str(selectors.from_object(metric["selector"])) if metric.get("selector") else ""


# ---------------------------------------------------------------- what


def answered(answers: dict[str, Any], paths: list[str], api: str, resource: str) -> Object:
    """The first answer that is none of "there is no such thing"; raises Unknown with the API's own words."""
    found: Any = None
    for path in paths:
        found = answers[path]
        if not isinstance(found, ApiError):
            return found  # type: ignore[no-any-return]
        if found.code != 404:
            break
    served = bool(found.details and found.details.get("name"))
    missing = f"the server could not find the requested resource (get {resource})"
    why = missing if found.code == 404 and not served else found.message
    raise Unknown(f"unable to fetch metrics from {api} metrics API: {why}")


def resource_samples(answer: Object, resource: str, container: str) -> Samples:
    """Usage of a resource by each Pod, or by one container of each."""
    items: Objects = answer.get("items") or []
    if not items:
        raise Unknown("no metrics returned from resource metrics API")
    samples: Samples = {}
    for item in items:
        usage = _usage(item, resource, container)
        if usage is not None:
            samples[item["metadata"]["name"]] = Sample(usage, _at(item), _window(item))
    return samples


def _usage(item: Object, resource: str, container: str) -> int | None:
    """None for a Pod of which a container did not tell."""
    total = 0
    for found in item.get("containers") or ():
        if container and found["name"] != container:
            continue
        amount = (found.get("usage") or {}).get(resource)
        if amount is None:
            return None
        if container:
            return quantity.milli(amount)
        total += quantity.milli(amount)
    if container:
        metadata = item["metadata"]
        raise Unknown(
            f"container {container} not present in metrics for pod {metadata['namespace']}/{metadata['name']}"
        )
    return total


def pods_samples(answer: Object) -> Samples:
    """A custom metric of each Pod."""
    items: Objects = answer.get("items") or []
    if not items:
        raise Unknown("no metrics returned from custom metrics API")
    return {
        item["describedObject"]["name"]: Sample(quantity.milli(item["value"]), _at(item), _window(item))
        for item in items
    }


def object_value(answer: Object) -> int:
    items: Objects = answer.get("items") or []
    if not items:
        raise Unknown("no metrics returned from custom metrics API")
    return quantity.milli(items[0]["value"])


def external_value(answer: Object) -> int:
    """The sum over all series that match."""
    items: Objects = answer.get("items") or []
    if not items:
        raise Unknown("no metrics returned from external metrics API")
    return sum(quantity.milli(item["value"]) for item in items)


def _at(item: Object) -> float:
    return seconds(item["timestamp"]) if item.get("timestamp") else 0.0


def _window(item: Object) -> float:
    if item.get("windowSeconds") is not None:
        return float(item["windowSeconds"])
    return parse_duration(item["window"]) if item.get("window") else 60.0
