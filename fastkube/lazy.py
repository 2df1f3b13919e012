"""Packages of which a process needs a part, imported without the rest.

`import aiohttp` loads its whole client, and with it the certificates of all authorities that the machine trusts: a
third of the time that a server takes to start. The server needs the HTTP parser only, simulated nodes the web server.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any


def package(name: str, **places: str) -> None:
    """Let the submodules of `name` be imported without its `__init__`, which runs when it is asked for something else.

    `places` says of what the package is asked for where it is: `attribute="submodule.its_name_there"`. Does nothing if
    the package is imported already. Any import statement works on it as before.
    """
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    loader, module = spec.loader, importlib.util.module_from_spec(spec)

    def attribute(wanted: str) -> Any:
        whole = f"{name}.{wanted}"
        if wanted in places:
            submodule, _, there = places[wanted].rpartition(".")
            return getattr(importlib.import_module(f"{name}.{submodule}"), there)
        if wanted == "__version__":
            from importlib.metadata import version

            return version(name)
        if wanted.startswith("__") and wanted.endswith("__"):
            raise AttributeError(f"module {name!r} has no attribute {wanted!r}")
        if importlib.util.find_spec(whole) is not None:
            return importlib.import_module(whole)
        module.__dict__.pop("__getattr__", None)
        loader.exec_module(module)
        return getattr(module, wanted)

    module.__dict__["__getattr__"] = attribute
    sys.modules[name] = module
