"""Both builds of a core: the compiled one, and the same source interpreted. Tests run on each, with readable ids."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import fastkube

_MADE_OF = {"_json": ("_codec",)}


def interpreted(name: str) -> ModuleType:
    """The core `name` (`_codec`) as plain Python, whatever this process uses; what it is made of also."""
    source = Path(fastkube.__file__).parent / f"{name}.pyx"
    loader = importlib.machinery.SourceFileLoader(f"interpreted{name}", str(source))
    spec = importlib.util.spec_from_file_location(loader.name, source, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for needed in _MADE_OF.get(name, ()):
            patch.setitem(sys.modules, f"fastkube.{needed}", interpreted(needed))
        loader.exec_module(module)
    assert not module.COMPILED
    return module


def builds(name: str) -> dict[str, ModuleType]:
    """{"compiled": ..., "interpreted": ...}; only the latter under FASTKUBE_PURE=1."""
    module = importlib.import_module(f"fastkube.{name}")
    found = {"compiled": module} if module.COMPILED else {}
    return {**found, "interpreted": interpreted(name)}
