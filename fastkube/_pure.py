"""One source, two builds: under FASTKUBE_PURE=1 the cores (`fastkube/_*.pyx`) run as plain Python.

The cores are written in Cython's pure-Python syntax, so the file that compiles is also a Python module. This finder
stands in front of the ordinary import system and loads the .pyx source even where a compiled module lies beside it.
There is no fallback in the other direction: without FASTKUBE_PURE=1 a core that was not built is an ImportError.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_PREFIX = "fastkube._"
_FOLDER = Path(__file__).parent


class _PureFinder:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(_PREFIX):
            return None
        source = _FOLDER / (fullname.removeprefix("fastkube.") + ".pyx")
        if not source.exists():
            return None
        loader = importlib.machinery.SourceFileLoader(fullname, str(source))
        return importlib.util.spec_from_file_location(fullname, source, loader=loader)


def asked() -> bool:
    """Whether this process was told to run the cores interpreted."""
    return os.environ.get("FASTKUBE_PURE", "") not in ("", "0")


def install_if_asked() -> None:
    """Called once, when the package is imported."""
    if asked() and not any(isinstance(finder, _PureFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PureFinder())
