"""What simulated containers say: their logs, and what commands print that are run in them. Pure functions.

A Pod's annotations decide; `NAME` is a container's, and without it all containers of the Pod are meant:

    fastkube.io/logs[.NAME]   the text of the log
    fastkube.io/exec[.NAME]   YAML: [{command: REGEX, stdout: TEXT, stderr: TEXT, exit: CODE}, ...], the first that
                              matches the whole command line answers
    fastkube.io/usage[.NAME]  "cpu=250m,memory=64Mi": what `kubectl top` shows; half of the requests unless given

Commands that no annotation answers: echo, env, exit, false, hostname, pwd, sleep, true, and sh or bash, which take
these from -c or from standard input. Any other is "command not found", exit code 127, as from a shell.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

from fastkube.api import quantity

Object = dict[str, Any]

LOGS = "fastkube.io/logs"
EXEC = "fastkube.io/exec"
USAGE = "fastkube.io/usage"

SHELLS = frozenset(("sh", "bash", "/bin/sh", "/bin/bash"))


class Output(NamedTuple):
    """What a command leaves."""

    stdout: str = ""
    stderr: str = ""
    code: int = 0


class LogLine(NamedTuple):
    """`time` is RFC 3339."""

    time: str
    text: str


def _annotation(pod: Object, name: str, container: str) -> str | None:
    annotations = pod["metadata"].get("annotations") or {}
    return annotations.get(f"{name}.{container}", annotations.get(name))


def container_status(pod: Object, container: str) -> Object | None:
    status = pod.get("status") or {}
    for kind in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for each in status.get(kind) or ():
            if each["name"] == container:
                found: Object = each
                return found
    return None


def log_of(pod: Object, container: str) -> list[LogLine]:
    """Every line of the container's log; without an annotation what its own command prints, if that is one that is
    answered (as below), else when it started and how it ended."""
    status = container_status(pod, container) or {}
    state = status.get("state") or {}
    ended = state.get("terminated") or {}
    started_at = (state.get("running") or ended).get("startedAt") or pod["metadata"]["creationTimestamp"]
    told = _annotation(pod, LOGS, container)
    if told is not None:
        return [LogLine(started_at, line) for line in told.splitlines()]
    printed = _own_output(pod, container)
    if printed is not None:
        return [LogLine(started_at, line) for line in printed.splitlines()]
    lines = [LogLine(started_at, f"simulated container {container} of image {status.get('image', '')} has started")]
    if ended:
        lines.append(LogLine(ended["finishedAt"], f"simulated container {container} exits with {ended['exitCode']}"))
    return lines


def _own_output(pod: Object, container: str) -> str | None:
    """What the command in the container's spec prints; None for one that nobody answers."""
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for each in pod["spec"].get(kind) or ():
            command = [*(each.get("command") or ()), *(each.get("args") or ())]
            if each["name"] == container and len(command) > 1:
                output = run(pod, container, command)
                return None if output.code == 127 else output.stdout + output.stderr
    return None


def run(pod: Object, container: str, command: list[str], stdin: str = "") -> Output:
    """The command's output. A shell without -c takes its commands from `stdin`, a line each."""
    if not command:
        return Output("", "no command was given\n", 127)
    answer = _configured(pod, container, shlex.join(command))
    if answer is not None:
        return answer
    if command[0] in SHELLS:
        script = command[command.index("-c") + 1] if "-c" in command[:-1] else stdin
        return _script(pod, container, script)
    builtin = _BUILTINS.get(command[0].rpartition("/")[2])
    if builtin is None:
        return Output("", f"{command[0]}: command not found (simulated container; see {EXEC})\n", 127)
    return builtin(pod, container, command[1:])


def _configured(pod: Object, container: str, line: str) -> Output | None:
    text = _annotation(pod, EXEC, container)
    if text is None:
        return None
    import yaml

    try:
        for each in yaml.safe_load(text):
            if re.fullmatch(each["command"], line):
                return Output(each.get("stdout", ""), each.get("stderr", ""), int(each.get("exit", 0)))
    except (yaml.YAMLError, re.error, KeyError, TypeError, ValueError) as error:
        return Output("", f"annotation {EXEC}: {error}\n", 126)
    return None


def _script(pod: Object, container: str, script: str) -> Output:
    stdout, stderr, code = "", "", 0
    for line in re.split(r"[;\n]", script):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            stderr, code = stderr + f"sh: {error}\n", 2
            continue
        if words[:1] == ["exit"]:
            return Output(stdout, stderr, int(words[1]) if words[1:] and words[1].isdigit() else code)
        if words:
            out = run(pod, container, words)
            stdout, stderr, code = stdout + out.stdout, stderr + out.stderr, out.code
    return Output(stdout, stderr, code)


def _env(pod: Object, container: str, words: list[str]) -> Output:
    specs = [each for each in pod["spec"]["containers"] if each["name"] == container]
    given = (
        [f"{each['name']}={each['value']}" for each in specs[0].get("env") or () if "value" in each] if specs else []
    )
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    lines = [path, f"HOSTNAME={_hostname(pod)}", *given, "HOME=/root"]
    return Output("".join(f"{line}\n" for line in lines))


def _hostname(pod: Object) -> str:
    name: str = pod["spec"].get("hostname") or pod["metadata"]["name"]
    return name


_BUILTINS: dict[str, Callable[[Object, str, list[str]], Output]] = {
    "echo": lambda pod, container, words: Output(" ".join(words) + "\n"),
    "env": _env,
    "false": lambda pod, container, words: Output(code=1),
    "hostname": lambda pod, container, words: Output(_hostname(pod) + "\n"),
    "pwd": lambda pod, container, words: Output("/\n"),
    "sleep": lambda pod, container, words: Output(),
    "true": lambda pod, container, words: Output(),
}


# ---------------------------------------------------------------- usage


class Usage(NamedTuple):
    """CPU in nanocores, memory in bytes."""

    cpu: int
    memory: int


_IDLE = Usage(1_000_000, 16 * 1024 * 1024)
"""Of a container that requests nothing."""


def usage_of(pod: Object, container: Object) -> Usage:
    """What a running container uses. A malformed annotation counts as none."""
    requests = (container.get("resources") or {}).get("requests") or {}
    cpu = _nanocores(requests["cpu"]) // 2 if "cpu" in requests else _IDLE.cpu
    memory = quantity.value(requests["memory"]) // 2 if "memory" in requests else _IDLE.memory
    parts = (_annotation(pod, USAGE, container["name"]) or "").split(",")
    told = dict(part.strip().partition("=")[::2] for part in parts)
    try:
        if "cpu" in told:
            cpu = _nanocores(told["cpu"])
        if "memory" in told:
            memory = quantity.value(told["memory"])
    except ValueError:
        pass
    return Usage(cpu, memory)


def _nanocores(text: str) -> int:
    return quantity.milli(text) * 1_000_000
