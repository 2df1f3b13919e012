"""What the annotations of a scripted Pod say. Pure functions; `NAME` is a container's, without it all are meant:

fastkube.io/pull[.NAME]       how long the image takes ("5s"), or "fail", or "fail 2" (so many times)
fastkube.io/exit[.NAME]       "CODE [after DURATION] [times N]": each run, or the first N, end so
fastkube.io/startup[.NAME]    the startup probe: "pass after 5s", or "fail after 30s", when it is restarted
fastkube.io/readiness[.NAME]  "fail", "pass after 10s", "fail after 1m": since the container's start
fastkube.io/liveness[.NAME]   "fail after 30s", when it is restarted
fastkube.io/stop-after        how long containers take to end when the Pod is deleted; killed when grace is over
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from fastkube.config import parse_duration

Object = dict[str, Any]

PREFIX = "fastkube.io/"
PARTS = ("pull", "exit", "startup", "readiness", "liveness")
STOP_AFTER = "fastkube.io/stop-after"
FOREVER = float("inf")


class ScriptError(ValueError):
    """An annotation that is not understood."""


def is_scripted(pod: Object) -> bool:
    """Whether any annotation is a part of a script."""
    annotations = pod["metadata"].get("annotations") or ()
    return any(
        name == STOP_AFTER or (name.startswith(PREFIX) and name[len(PREFIX) :].partition(".")[0] in PARTS)
        for name in annotations
    )


class Exit(NamedTuple):
    code: int = 0
    after_s: float = FOREVER


class Probe(NamedTuple):
    """Whether it holds until `after_s`, and that it is the other way round from then on."""

    first: bool
    after_s: float

    def holds(self, age_s: float) -> bool:
        return self.first if age_s < self.after_s else not self.first


_EXIT = re.compile(r"(\d+)(?:\s+after\s+(\S+))?(?:\s+times\s+(\d+))?")
_PROBE = re.compile(r"(pass|fail)(?:\s+after\s+(\S+))?")
_PULL = re.compile(r"fail(?:\s+(\d+))?")


def _told(pod: Object, part: str, name: str) -> str:
    annotations = pod["metadata"].get("annotations") or {}
    text: str = annotations.get(f"{PREFIX}{part}.{name}", annotations.get(f"{PREFIX}{part}", ""))
    return text.strip()


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ScriptError(str(error)) from error


def exit_of(pod: Object, name: str, init: bool, run: int) -> Exit:
    """How the container's run (0 for the first) ends; without a script init containers end well at once."""
    plain = Exit(0, 0.0) if init else Exit()
    text = _told(pod, "exit", name)
    if not text:
        return plain
    match = _EXIT.fullmatch(text)
    if match is None:
        raise ScriptError(f"{PREFIX}exit: {text!r} is not CODE [after DURATION] [times N]")
    code, after, times = match.groups()
    if times and run >= int(times):
        return plain
    return Exit(int(code), _duration(after) if after else 0.0)


def probe_of(pod: Object, part: str, name: str) -> Probe:
    text = _told(pod, part, name)
    if not text:
        return Probe(True, FOREVER)
    match = _PROBE.fullmatch(text)
    if match is None:
        raise ScriptError(f"{PREFIX}{part}: {text!r} is not pass or fail [after DURATION]")
    word, after = match.groups()
    if after is None:
        return Probe(word == "pass", FOREVER)
    return Probe(word == "fail", _duration(after))


def fails_after(pod: Object, part: str, spec: Object) -> float:
    """The age at which a startup or liveness probe has failed for good; "fail" alone: as soon as the probe allows."""
    probe = probe_of(pod, part, spec["name"])
    if probe.after_s < FOREVER:
        return probe.after_s if probe.first else FOREVER
    given = spec.get(f"{part}Probe") or {}
    allowed: float = given.get("failureThreshold", 3) * given.get("periodSeconds", 10)
    return FOREVER if probe.first else allowed


class Pull(NamedTuple):
    seconds: float
    failures: float


def pull_of(pod: Object, name: str) -> Pull:
    text = _told(pod, "pull", name)
    match = _PULL.fullmatch(text)
    if match:
        return Pull(0.0, int(match.group(1)) if match.group(1) else FOREVER)
    return Pull(_duration(text) if text else 0.0, 0)


def stop_after_s(pod: Object) -> float:
    return _duration((pod["metadata"].get("annotations") or {}).get(STOP_AFTER, "0s"))
