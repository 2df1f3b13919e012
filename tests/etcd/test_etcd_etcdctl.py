"""etcdctl against fastkube and against the real etcd: the same commands, the same output.

Each script runs on both, in order, on keys of its own; revisions run alike, since both have done the same before.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from servers import fastkube_etcd, real_etcd

pytestmark = pytest.mark.clients

SECONDS = 20.0

Step = str | tuple[str, str]
"""A command, and what it reads from its standard input."""

SCRIPTS: dict[str, list[Step]] = {
    "put and get": [
        "put k/a 1",
        "put k/b 2",
        "put k/a 3 --prev-kv",
        "put k/c --ignore-value",
        "put k/a --ignore-value",
        "put k/a 4 --ignore-lease",
        "get k/a",
        "get k/a -w json",
        "get k/a -w fields",
        "get k/a --print-value-only",
        "get k/ --prefix",
        "get k/ --prefix -w json",
        "get k/ --prefix --keys-only",
        "get k/ --prefix --count-only -w fields",
        "get k/ --prefix --limit 1 -w json",
        "get k/a k/b -w json",
        "get k/a --from-key -w json",
        "get '' --from-key --keys-only",
        "get k/none -w json",
        "get k/a --rev 2 -w json",
        "get k/a --rev 3",
        "get k/ --prefix --rev 3 -w json",
        "get k/ --rev 100",
        "get k/a --consistency s",
        "get ''",
        "put '' x",
        "del ''",
    ],
    "sorting": [
        "put s/c 1",
        "put s/a 3",
        "put s/b 2",
        "put s/a 3",
        *[
            f"get s/ --prefix --order {order} --sort-by {field} -w json"
            for order in ("ASCEND", "DESCEND")
            for field in ("KEY", "VERSION", "CREATE", "MODIFY", "VALUE")
        ],
        "get s/ --prefix --sort-by VALUE",
        "get s/ --prefix --order DESCEND --limit 2 -w json",
        "get s/ --prefix --order DESCEND --sort-by CREATE --limit 1 -w json",
        "get s/ --prefix --order ASCEND --sort-by VALUE --keys-only",
    ],
    "deleting": [
        "put d/a 1",
        "put d/b 2",
        "put d/c 3",
        "put e 4",
        "del d/a --prev-kv",
        "del d/a",
        "del d/a -w json",
        "del d/b d/c --prev-kv -w json",
        "del d/ --prefix --prev-kv",
        "get d/ --prefix -w json",
        "put d/a again",
        "get d/a -w json",
        "del d/ --from-key -w json",
        "get '' --from-key --keys-only",
    ],
    "transactions": [
        "put t/a 1",
        ("txn", 'value("t/a") = "1"\n\nput t/a 2\nget t/a\nput t/b 5\n\nput t/c 3\n\n'),
        ("txn -w json", 'value("t/a") = "1"\n\nput t/a 2\n\nget t/ --prefix\nput t/c 3\nget t/c\n\n'),
        ("txn -w json", 'mod("t/a") > "1"\ncreate("t/z") = "0"\nversion("t/b") = "1"\n\ndel t/ --prefix\n\n\n'),
        ("txn -w json", 'mod("t/none") < "1"\n\nget t/none\n\n\n'),
        ("txn -w json", 'value("t/none") != "1"\n\nput t/d 1\n\nput t/e 1\n\n'),
        ("txn", 'version("t/d") = "0"\n\nput t/f 1\nput t/f 2\n\n\n'),
        ("txn", 'version("t/d") = "0"\n\nput t/f 1\ndel t/f\n\n\n'),
        ("txn", 'version("t/d") = "0"\n\nput t/g 1\nget t/g --rev 900\n\n\n'),
        ("txn -w json", "\nput t/g 1\nget t/ --prefix --limit 1\ndel t/none\n\n\n"),
        ("txn -w json", "\nput t/h 1 --prev-kv\nput t/g 2 --prev-kv\ndel t/e --prev-kv\n\n\n"),
        "get t/ --prefix -w json",
    ],
    "compaction": [
        "put c/a 1",
        "put c/a 2",
        "put c/a 3",
        "compaction 4",
        "get c/a --rev 2",
        "get c/a --rev 3",
        "compaction 4",
        "compaction 1",
        "compaction 10000",
        "compaction 5 --physical",
        "get c/a -w json",
    ],
    "leases": [
        "lease grant 100 -w json",
        "lease revoke 7b",
        "lease timetolive 7b",
        "lease timetolive 7b -w json",
        "lease keep-alive --once 7b",
        "put l/a 1 --lease 7b",
        "put l/a 1 --lease zz",
        "lease grant 9000000001",
    ],
    "the rest": [
        "member list",
        "member list -w json",
        "endpoint health",
        "defrag",
        "alarm list",
        "alarm disarm",
        "auth status",
        "move-leader 1",
        "member remove 1",
        "member promote 1",
    ],
}

_IGNORED = re.compile(r"took = \S+|took\":[^,}]*|127\.0\.0\.1:\d+|^\{\"level\".*$", re.MULTILINE)
_LEASE = re.compile(r'"ID":\d+')


class Side:
    """One of the two servers."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, step: Step) -> str:
        """Standard output, what went wrong, and the exit status; times and addresses taken out."""
        words, given = step if isinstance(step, tuple) else (step, "")
        command = f"etcdctl --endpoints {self.url} {words}"
        environment = {**os.environ, "ETCDCTL_API": "3"}
        done = subprocess.run(
            command, shell=True, input=given, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
        told = done.stdout + "\n" + done.stderr + f"\nexit {done.returncode}"
        return _LEASE.sub('"ID":0', _IGNORED.sub("", told))


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    folder = tmp_path_factory.mktemp("etcd")
    with fastkube_etcd(folder / "ours") as ours, real_etcd(folder / "theirs") as theirs:
        yield Side(ours), Side(theirs)


@pytest.mark.parametrize("name", SCRIPTS)
def test_same_commands_same_output(sides: tuple[Side, Side], name: str) -> None:
    ours, theirs = sides
    for step in SCRIPTS[name]:
        assert (step, ours.run(step)) == (step, theirs.run(step))


@contextlib.contextmanager
def following(side: Side, words: str) -> Iterator[IO[str]]:
    """The output of a command that goes on."""
    command = ["etcdctl", "--endpoints", side.url, *words.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.terminate()


WATCHES = {
    "w/ --prefix": 9,
    "w/ --prefix --prev-kv": 10,
    "w/b": 3,
    "w/ --prefix --rev 1": 9,
    "w/a w/c": 9,
    "w/b -w json": 1,
}
"""What is watched, and how many lines are then told of three changes."""


@pytest.mark.parametrize("words", WATCHES)
def test_a_watch_tells_the_same(sides: tuple[Side, Side], words: str) -> None:
    told = []
    for side in sides:
        side.run("del w/ --prefix")
        before = json.loads(side.run("get w/ -w json").partition("\n")[0])["header"]["revision"]
        words_here = words.replace("--rev 1", f"--rev {before + 1}")
        with following(side, f"watch {words_here}") as output:
            if "--rev" not in words:
                _until_watched(side)
            for step in ("put w/a 1", "put w/b 2", "del w/a"):
                side.run(step)
            lines = [output.readline() for _ in range(WATCHES[words])]
            told.append([re.sub(r'"\w*(?i:revision)":\d+,?|"watch_id":\d+,?', "", line) for line in lines])
    assert told[0] == told[1]


def _until_watched(side: Side) -> None:
    """A watch says nothing when it begins: it has, within the time of a few commands."""
    for _ in range(10):
        side.run("get w/")


def test_a_compacted_watch_says_so(sides: tuple[Side, Side]) -> None:
    told = []
    for side in sides:
        side.run("put wc 1")
        revision = json.loads(side.run("put wc 2 -w json").partition("\n")[0])["header"]["revision"]
        side.run(f"compaction {revision}")
        told.append(side.run("watch wc --rev 1").replace(str(revision), "N"))
    assert told[0] == told[1]
    assert "required revision has been compacted" in told[0]


def test_locks_and_elections(sides: tuple[Side, Side]) -> None:
    told = []
    for side in sides:
        with following(side, "lock name") as held:
            first = held.readline()
            with following(side, "lock name") as waiting:
                side.run("get name/ --prefix")
                side.run(f"del {first.strip()}")
                second = waiting.readline()
        with following(side, "elect post one") as leader:
            elected = [leader.readline(), leader.readline()]
            listened = side.run("get post/ --prefix")
        told.append(re.sub(r"/[0-9a-f]{10,}", "/LEASE", "".join((first, second, *elected, listened))))
    assert told[0] == told[1]
    assert side.run("lock other echo held").startswith("held")


def test_a_lease_and_its_keys(sides: tuple[Side, Side]) -> None:
    told = []
    for side in sides:
        lease = side.run("lease grant 90").split()[1]
        outputs = [
            side.run(f"put ls/{key} 1 --lease {lease}") + side.run(f"lease timetolive {lease} --keys") for key in "aa"
        ]
        outputs += [side.run(f"lease keep-alive --once {lease}"), side.run(f"lease revoke {lease}")]
        outputs += [side.run("get ls/ --prefix"), side.run(f"lease timetolive {lease}"), side.run("lease grant 1")]
        told.append(re.sub(r"[0-9a-f]{15,}|remaining\(\d+s\)", "", "".join(outputs)))
    assert told[0] == told[1]


def test_status_and_hash(sides: tuple[Side, Side]) -> None:
    ours = sides[0]
    for side in sides:
        side.run("put something once")
    told = [json.loads(side.run("endpoint status -w json").strip().partition("\n")[0])[0]["Status"] for side in sides]
    assert set(told[0]) == set(told[1])
    assert re.fullmatch(r"http://, \d+", ours.run("endpoint hashkv").partition("\n")[0])
    assert ours.run("endpoint hashkv") == ours.run("endpoint hashkv")


def ctl(url: str, *words: str, given: str = "") -> str:
    """What etcdctl prints, as it is."""
    command = ["etcdctl", "--endpoints", url, *words]
    done = subprocess.run(command, input=given, env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def everything(url: str) -> tuple[int, list[dict[str, Any]]]:
    """The revision, and all keys."""
    answer = json.loads(ctl(url, "get", "", "--from-key", "-w", "json"))
    return answer["header"]["revision"], answer["kvs"]


def fill(url: str) -> str:
    """Many pages, a value larger than one, older versions, deletes, transactions; and a key with the lease returned."""
    for page in range(10):
        puts = "\n".join(f"put many{page}/{number:05} {number * 7919}" for number in range(120))
        ctl(url, "txn", given=f"\n{puts}\n\n\n")
    ctl(url, "put", "large", given="v" * 300_000)
    ctl(url, "put", "many3/00007", "again")
    ctl(url, "del", "many4/", "--prefix")
    lease = ctl(url, "lease", "grant", "3600").split()[1]
    ctl(url, "put", "leased", "yes", "--lease", lease)
    return lease


@pytest.mark.timeout(180)
def test_snapshots_go_from_fastkube_to_etcd_and_back(tmp_path: Path) -> None:
    ours, theirs = str(tmp_path / "ours.db"), str(tmp_path / "theirs.db")
    with fastkube_etcd(tmp_path / "first") as url:
        lease = fill(url)
        known = everything(url)
        ctl(url, "snapshot", "save", ours)
    status = json.loads(ctl(url, "snapshot", "status", ours, "-w", "json"))
    assert status["revision"] == known[0] == max(kv["mod_revision"] for kv in known[1])
    ctl(url, "snapshot", "restore", ours, "--data-dir", str(tmp_path / "real"))
    with real_etcd(tmp_path / "real") as url:
        assert everything(url) == known
        assert "granted with TTL(3600s)" in ctl(url, "lease", "timetolive", lease, "--keys")
        ctl(url, "put", "after", "1")
        assert ctl(url, "del", "many5/", "--prefix") == "120\n"
        known = everything(url)
        assert known[0] == status["revision"] + 2
        ctl(url, "snapshot", "save", theirs)
    command = [sys.executable, "-m", "fastkube", "snapshot", "restore", theirs, "--data-dir", str(tmp_path / "second")]
    subprocess.run(command, check=True)
    with fastkube_etcd(tmp_path / "second") as url:
        assert everything(url) == known
        assert "compacted" in Side(url).run(f"get after --rev {known[0] - 1}")
        ctl(url, "lease", "revoke", lease)
        assert everything(url)[1] == [kv for kv in known[1] if not kv.get("lease")]


@pytest.mark.timeout(180)
def test_check_perf_passes_its_small_load(sides: tuple[Side, Side]) -> None:
    command = ["etcdctl", "--endpoints", sides[0].url, "check", "perf", "--load", "s"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "PASS: Throughput" in done.stdout, done.stdout
