#!/usr/bin/env python3
"""Replay recorded conversations with the real kube-apiserver against a bare `fastkube apiserver`.

    tools/golden_replay.py PATH/TO/golden.py PATH/TO/TRANSCRIPTS [--filter REGEX]

Starts a server on a free port and fresh data with the settings that the recordings were made under, and compares what
fails with tests/golden_gaps.txt, the list of known gaps ("area/name: reason" a line). A scenario that fails and is not
listed is an error. One that is listed and passes is told, and an error under --strict: the list is to stay true.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GAPS = ROOT / "tests" / "golden_gaps.txt"
TOKENS = """admintoken,admin,admin,"system:masters"
alicetoken,alice,alice,"dev"
bobtoken,bob,bob,"ops,dev"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A bare API server; gives its URL."""
    with tempfile.TemporaryDirectory(prefix="fastkube-golden-") as folder:
        tokens, port = Path(folder) / "tokens.csv", free_port()
        tokens.write_text(TOKENS)
        words = [sys.executable, "-m", "fastkube", "apiserver", "--data-dir", f"{folder}/data"]
        words += ["--secure-port", str(port), "--token-auth-file", str(tokens), "--authorization-mode", "Node,RBAC"]
        words += ["--service-cluster-ip-range", "10.0.0.0/16", "--disable-admission-plugins", "ServiceAccount"]
        words += ["--service-account-issuer", "https://kubernetes.default.svc"]
        with (Path(folder) / "log").open("w+b") as log:
            process = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log)
            try:
                wait_ready(f"https://127.0.0.1:{port}/readyz", process)
                yield f"https://127.0.0.1:{port}"
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(10)
                log.seek(0)
                text = log.read().decode(errors="replace")
                if "Traceback" in text:
                    print(text[-6000:], file=sys.stderr)


def wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    import ssl

    context = ssl._create_unverified_context()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, context=context):
            return
        time.sleep(0.05)
    raise SystemExit(f"the server did not become ready (exit status {process.poll()})")


def known_gaps() -> dict[str, str]:
    gaps = {}
    for line in GAPS.read_text().splitlines() if GAPS.exists() else ():
        if line.strip() and not line.startswith("#"):
            name, _, reason = line.partition(":")
            gaps[name.strip()] = reason.strip()
    return gaps


def outcomes(junit: Path) -> dict[str, bool]:
    """{area/name: passed, messages included}."""
    cases = xml.etree.ElementTree.parse(junit).getroot().iter("testcase")
    return {f"{case.get('classname')}/{case.get('name')}": case.find("failure") is None for case in cases}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("tool", type=Path, help="the replay program, golden.py")
    parser.add_argument("transcripts", type=Path, help="folder of recorded conversations")
    parser.add_argument("--filter", default="", help="only scenarios whose area/name matches this expression")
    parser.add_argument("--jobs", default="4")
    parser.add_argument("--show-diff", action="store_true")
    parser.add_argument("--strict", action="store_true", help="fail when a listed gap is closed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, server() as url:
        junit = Path(folder) / "golden.xml"
        words = [sys.executable, str(options.tool), "replay", "--server", url, "--insecure", "--by-area"]
        words += ["--jobs", options.jobs, "--junit", str(junit)]
        words += ["--filter", options.filter] if options.filter else []
        words += ["--show-diff"] if options.show_diff else []
        subprocess.run([*words, str(options.transcripts)], check=False)
        found = outcomes(junit)
    gaps = known_gaps()
    new = sorted(name for name, passed in found.items() if not passed and name not in gaps)
    closed = sorted(name for name, passed in found.items() if passed and name in gaps)
    for name in new:
        print(f"not listed in {GAPS.relative_to(ROOT)}: {name}")
    for name in closed:
        print(f"passes now, take it off {GAPS.relative_to(ROOT)}: {name}")
    areas = collections.Counter(name.partition("/")[0] for name, passed in found.items() if not passed)
    print(f"{sum(found.values())} of {len(found)} as recorded; gaps by area: {dict(sorted(areas.items())) or 'none'}")
    return 1 if new or (closed and options.strict) else 0


if __name__ == "__main__":
    sys.exit(main())
