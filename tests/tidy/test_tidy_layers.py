"""The layers of ARCHITECTURE.md, as a failing test: a part may import those below it, never those above or beside."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "fastkube"

# Each part and what it may import; a part may always import itself.
BASE = {"errors", "config", "clock", "_pure", "__init__"}
API = BASE | {"api", "_casts", "_codec", "_duplicates", "_fields", "_fieldsets", "_json", "_protobuf", "_schema"}
CEL = {"cel"}
STORE = BASE | {"store", "_hpack", "_protobuf", "_raft", "_raftconf", "_raftlog"}
COMPONENT = API | {"client"}
MAY_IMPORT = {
    "errors": set(),
    "config": set(),
    "clock": set(),
    "_pure": set(),
    "lazy": set(),
    "__init__": {"_pure"},
    "_casts": set(),
    "_codec": set(),
    "_json": {"_codec"},
    "_duplicates": set(),
    "_shapes": set(),
    "_fields": set(),
    "_fieldsets": {"_fields"},
    "_protobuf": set(),
    "_messages": set(),
    "_hpack": set(),
    "_http2": {"_hpack"},
    "_schema": set(),
    "_columns": set(),
    "_sched": {"_columns"},
    "_scores": {"_columns"},
    "_raftlog": set(),
    "_raftconf": {"_raftlog"},
    "_raft": {"_raftconf", "_raftlog"},
    "api": API,
    "cel": API,
    "store": STORE,
    "registry": API | STORE | CEL | {"_shapes"},
    "server": API | STORE | CEL | {"registry", "client", "lazy"},
    "client": API,
    "etcd": STORE | {"_messages", "_http2"},
    "scheduler": COMPONENT | CEL | {"_columns", "_sched", "_scores"},
    "controllers": COMPONENT | CEL,
    "nodes": COMPONENT | CEL | {"lazy"},
    "recording": COMPONENT,
    "cluster": None,
    "commands": None,
    "components": None,
    "frontends": None,
    "replicas": None,
    "etcdserver": None,
    "embedded": None,
    "forked": None,
    "initial": None,
    "process": None,
    "testing": None,
    "cli": None,
    "cli_clusters": None,
    "cli_members": None,
    "cli_nodes": None,
    "cli_scheduler": None,
    "cli_servers": None,
    "cli_up": None,
    "__main__": {"__init__", "cli"},
}


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py").removesuffix(".pyx")


def imported_parts(path: Path) -> set[tuple[str, int]]:
    """(part, line) for each import of fastkube in a file, those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            words = name.split(".")
            if words[0] == "fastkube" and len(words) > 1:
                part = words[1] if words[1] in MAY_IMPORT else "__init__"
                found.add((part, node.lineno))
    return found


SOURCES = sorted(path for pattern in ("*.py", "*.pyx") for path in PACKAGE.rglob(pattern))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    part = part_of(path)
    assert part in MAY_IMPORT, f"{part} has no place in the layers: give it one here and in ARCHITECTURE.md"
    allowed = MAY_IMPORT[part]
    if allowed is None:
        return
    for other, line in imported_parts(path):
        assert other == part or other in allowed, (
            f"{path.relative_to(PACKAGE.parent)}:{line} imports fastkube.{other}, above or beside fastkube.{part}. "
            "Move what is shared down to a part that both may import, or hand it in from fastkube.cluster."
        )


def test_no_relative_imports() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), (
                f"{path}: write absolute imports, so that layers can be read off them"
            )


def test_files_stay_readable() -> None:
    for path in SOURCES:
        lines = len(path.read_text().splitlines())
        assert lines <= 1000, f"{path.relative_to(PACKAGE.parent)} has {lines} lines: split it by subject"
