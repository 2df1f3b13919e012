"""Both builds of a core: the compiled one, and the same source interpreted. Tests run on each, with readable ids."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType

import fastkube


def interpreted(name: str) -> ModuleType:
    """The core `name` (`_codec`) as plain Python, whatever this process uses."""
    source = Path(fastkube.__file__).parent / f"{name}.pyx"
    loader = importlib.machinery.SourceFileLoader(f"interpreted{name}", str(source))
    spec = importlib.util.spec_from_file_location(loader.name, source, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    assert not module.COMPILED
    return module


def builds(name: str) -> dict[str, ModuleType]:
    """{"compiled": ..., "interpreted": ...}; only the latter under FASTKUBE_PURE=1."""
    module = importlib.import_module(f"fastkube.{name}")
    found = {"compiled": module} if module.COMPILED else {}
    return {**found, "interpreted": interpreted(name)}
