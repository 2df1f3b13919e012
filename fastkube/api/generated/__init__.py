"""Generated tables (tools/generate_tables.py) and how they are read: lazily, once a process."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import orjson


@cache
def table(name: str) -> Any:
    """The table `name` (resources, schemas, protobuf, bootstrap). It is shared: callers must not change it."""
    with open(os.path.join(os.path.dirname(__file__), f"{name}.json"), "rb") as file:
        return orjson.loads(file.read())
