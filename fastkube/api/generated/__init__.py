"""Generated tables (tools/generate_tables.py) and how they are read: lazily, once a process."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import orjson


@cache
def table(name: str) -> Any:
    """The table `name` (resources, schemas, protobuf, bootstrap). It is shared: callers must not change it."""
    return orjson.loads(resources.files(__name__).joinpath(f"{name}.json").read_bytes())
