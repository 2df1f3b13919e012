"""Events: what is written, what is counted, what is combined and what is dropped."""

from __future__ import annotations

from typing import Any

from toyserver import ToyServer

from fastkube.client import Client
from fastkube.client.events import SPAM_BURST, Correlator, EventRecorder, SeriesRecorder
from fastkube.clock import ManualClock

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default", "uid": "u1", "resourceVersion": "7"},
}


def event(message: str, uid: str = "u1") -> dict[str, Any]:
    return {
        "metadata": {"name": "web.1", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "web", "uid": uid},
        "source": {"component": "test"},
        "type": "Normal",
        "reason": "Tested",
        "message": message,
        "count": 1,
        "firstTimestamp": "t0",
        "lastTimestamp": message,
    }


def test_the_same_event_again_is_a_count() -> None:
    correlator = Correlator()
    first = correlator.correlate(event("a"), 0)
    second = correlator.correlate(event("a"), 1)
    third = correlator.correlate(event("a"), 2)
    assert first is not None
    assert first.patch is None
    assert second is not None
    assert second.patch == {"count": 2, "lastTimestamp": "a", "message": "a"}
    assert third is not None
    assert third.patch is not None
    assert third.patch["count"] == 3


def test_many_messages_are_combined() -> None:
    correlator = Correlator()
    writes = [correlator.correlate(event(f"m{index}"), index) for index in range(12)]
    messages = [write.event["message"] for write in writes if write]
    assert messages[8] == "m8"
    assert messages[9] == "(combined from similar events): m9"
    assert writes[10] is not None
    assert writes[10].patch == {
        "count": 2,
        "lastTimestamp": "m10",
        "message": "(combined from similar events): m10",
    }
    late = correlator.correlate(event("later"), 2000)
    assert late is not None
    assert late.event["message"] == "later"


def test_spam_of_one_object_is_dropped_and_others_are_not() -> None:
    correlator = Correlator()
    written = [correlator.correlate(event("a"), 0) for _ in range(40)]
    assert sum(write is not None for write in written) == SPAM_BURST
    assert correlator.correlate(event("a", uid="u2"), 0) is not None
    assert correlator.correlate(event("a"), 301) is not None


async def until_written(toy: ToyServer, recorder: EventRecorder | SeriesRecorder, count: int) -> list[dict[str, Any]]:
    await toy.received(count)
    await recorder.flush()
    return [obj for (plural, _, _), obj in toy.objects.items() if plural == "events"]


async def test_core_events_are_written_as_upstream_writes_them(toy: ToyServer, client: Client) -> None:
    clock = ManualClock(1_000_000_000)
    recorder = EventRecorder(client, "test-controller", clock)
    recorder.start()
    recorder.event(POD, "Normal", "Tested", "it was tested")
    recorder.event(POD, "Normal", "Tested", "it was tested")
    written = await until_written(toy, recorder, 2)
    await recorder.stop()
    assert len(written) == 1
    told = written[0]
    assert told["metadata"]["name"].startswith("web.")
    assert told["involvedObject"] == {
        "kind": "Pod",
        "namespace": "default",
        "name": "web",
        "uid": "u1",
        "apiVersion": "v1",
        "resourceVersion": "7",
    }
    assert told["source"] == {"component": "test-controller"}
    assert told["reportingComponent"] == "test-controller"
    assert (told["count"], told["message"]) == (2, "it was tested")
    assert told["firstTimestamp"] == "2001-09-09T01:46:40Z"


async def test_series_open_with_the_second_occurrence_and_end_in_time(toy: ToyServer, client: Client) -> None:
    clock = ManualClock(1_000_000_000)
    recorder = SeriesRecorder(client, "default-scheduler", "default-scheduler-host", clock)
    recorder.start()
    for _ in range(5):
        recorder.event(POD, "Warning", "FailedScheduling", "Scheduling", "no nodes")
    written = await until_written(toy, recorder, 2)
    assert [told["series"]["count"] for told in written] == [2]
    assert written[0]["regarding"]["name"] == "web"
    assert written[0]["note"] == "no nodes"
    await clock.advance(400)
    written = await until_written(toy, recorder, 3)
    assert [told["series"]["count"] for told in written] == [5]
    recorder.event(POD, "Warning", "FailedScheduling", "Scheduling", "no nodes")
    written = await until_written(toy, recorder, 4)
    assert len(written) == 2
    await recorder.stop()


async def test_an_event_that_is_gone_is_made_again(toy: ToyServer, client: Client) -> None:
    recorder = EventRecorder(client, "test", ManualClock())
    recorder.start()
    recorder.event(POD, "Normal", "Tested", "once")
    written = await until_written(toy, recorder, 1)
    await toy.remove("default", written[0]["metadata"]["name"], "events")
    recorder.event(POD, "Normal", "Tested", "once")
    written = await until_written(toy, recorder, 3)
    await recorder.stop()
    assert written[0]["count"] == 2
