"""The generated tables are what their sources say, and agree with each other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastkube.api.generated import table

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_schemas_are_what_the_generator_writes() -> None:
    command = [sys.executable, str(ROOT / "tools" / "generate_tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_of_what_is_supported_is_what_the_code_says() -> None:
    command = [sys.executable, str(ROOT / "tools" / "supported.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def references(told: Any) -> Iterator[str]:
    code = told if isinstance(told, str) else told[0]
    if "@" in code:
        yield code.partition("@")[2].rstrip("*!0")


def test_every_type_that_a_schema_names_has_one() -> None:
    schemas = table("schemas")
    named = {name for row in schemas.values() for told in row.get("fields", {}).values() for name in references(told)}
    assert named <= schemas.keys()


def test_every_message_that_a_wire_table_names_has_one() -> None:
    messages = table("protobuf")
    named = {row[2].removesuffix(">").rpartition(",")[2] for rows in messages.values() for row in rows}
    assert {name for name in named if "." in name} <= messages.keys()


def test_wire_tables_and_schemas_have_the_same_fields() -> None:
    """apiVersion and kind of a top-level object are not on the wire; the schemas lack fields that are not served."""
    schemas, messages = table("schemas"), table("protobuf")

    def names(message: str) -> Iterator[str]:
        for name, _, kind, label in messages[message]:
            yield from names(kind) if label == "inline" else (name,)

    for name in schemas.keys() & messages.keys():
        fields = schemas[name].get("fields", {})
        if fields:
            assert fields.keys() - {"apiVersion", "kind"} <= set(names(name)), name


def test_every_resource_has_a_schema_in_each_version() -> None:
    kinds = {tuple(kind) for row in table("schemas").values() for kind in row.get("kinds", ())}
    for row in table("resources"):
        assert (row["storage"][0], row["storage"][1], row["kind"]) in kinds
        for version in row["versions"]:
            assert (row["group"], version, row["kind"]) in kinds


def test_go_types_tells_of_every_field() -> None:
    facts = json.loads((ROOT / "tools" / "go_types.json").read_text())
    for name, row in table("schemas").items():
        if not name.endswith("List"):
            assert row.get("fields", {}).keys() - facts.get(name, {}).keys() <= {"apiVersion", "kind"}, name
