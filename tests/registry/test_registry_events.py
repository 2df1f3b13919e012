"""Events of both groups: they vanish by themselves, and the newer group is stricter."""

from typing import Any

from clusters import Cluster, refused
from kinds import causes

NEW = "events.events.k8s.io"


def event(**content: Any) -> dict[str, Any]:
    whole = {
        "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "e.com/c",
        "reportingInstance": "i",
        "action": "Do",
        "reason": "R",
        "type": "Normal",
        "note": "N",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
    }
    return {**whole, **content}


def granted(cluster: Cluster) -> int:
    """How long the event lives after its last write, in seconds."""
    item = cluster.store.get(b"/registry/events/default/e")
    assert item is not None
    return cluster.store.lease_ttl(item.lease).granted_s


async def test_an_event_lives_for_an_hour_after_each_write(cluster: Cluster):
    await cluster.create(NEW, event())
    assert 3600 <= granted(cluster) < 3720
    await cluster.patch("events", "e", {"count": 2})
    assert 3600 <= granted(cluster) < 3720


async def test_only_the_series_of_a_new_event_goes_on(cluster: Cluster):
    await cluster.create(NEW, event())
    series = {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}
    assert (await cluster.patch(NEW, "e", {"series": series}))["series"] == series
    async with refused(422, "Invalid") as caught:
        await cluster.patch(NEW, "e", {"note": "M", "series": {"count": 1}})
    assert causes(caught.value) == [
        'series.count: Invalid value: "": should be at least 2',
        'message: Invalid value: "M": field is immutable',
    ]
    assert (await cluster.patch("events", "e", {"message": "M"}))["message"] == "M"


async def test_errors_name_the_group_of_the_request_and_the_kind_that_is_stored(cluster: Cluster):
    for resource, named in (("events", "events"), (NEW, "events.events.k8s.io")):
        async with refused(404, "NotFound", f'{named} "none" not found'):
            cluster.get(resource, "none")
    async with refused(422, "Invalid", 'Event "e" is invalid: type: Invalid value: "": has invalid value: Odd'):
        await cluster.create(NEW, event(type="Odd"))
