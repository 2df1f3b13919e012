"""Packages of which a process needs a part, imported without the rest.

`import aiohttp` loads its whole client, and with it the certificates of all authorities that the machine trusts: a
third of the time that a server takes to start. The server needs the HTTP parser only, simulated nodes the web server.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import ModuleType
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


class Later:
    """A function, class or value that is imported or made when it is first called, looked into or derived from."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __call__(self, *values: Any, **named: Any) -> Any:
        return self._make()(*values, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._make(), name)

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, self._make())

    def __or__(self, other: Any) -> Any:
        return Any  # in an annotation

    __ror__ = __or__

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._make(),)


def decorated_later(decorator: str) -> Callable[..., Callable[[type], Later]]:
    """Stands for a class decorator with arguments ("module.name"): the class is made when it is first used."""
    module, _, name = decorator.rpartition(".")

    def with_arguments(**options: Any) -> Callable[[type], Later]:
        def decorate(cls: type) -> Later:
            made: list[type] = []

            def make() -> type:
                if not made:
                    made.append(getattr(importlib.import_module(module), name)(**options)(cls))
                return made[0]

            return Later(make)

        return decorate

    return with_arguments


class _StandIn(ModuleType):
    """A module that is not imported before something is used of it that it does not have `given`."""

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.__dict__.update(given)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def stand_ins(modules: Mapping[str, Mapping[str, Any] | tuple[str, ...]]) -> Iterator[None]:
    """While it lasts, these modules are not imported where they are asked for, unless they are already.

    Of each either the names that are imported from it (each then is a `Later`), or what it is to give for them. An
    `import` of the whole module gets one that imports itself when it is used.
    """
    missing = {name: given for name, given in modules.items() if name not in sys.modules}
    for name, given in missing.items():
        named = {each: Later(partial(_imported, name, each)) for each in given} if isinstance(given, tuple) else given
        sys.modules[name] = _StandIn(name, named)
    try:
        yield
    finally:
        for name in missing:
            if isinstance(sys.modules.get(name), _StandIn):
                del sys.modules[name]


def _imported(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def http_parser() -> None:
    """Let aiohttp's parts be imported without its client, and its parser without what only others of them use."""
    package("aiohttp")
    package("idna")
    named = {
        "email.parser": ("HeaderParser",),
        "email.policy": ("HTTP",),
        "netrc": ("netrc",),
        "urllib.request": ("getproxies", "proxy_bypass"),
    }
    with stand_ins({**named, "attr": {"s": decorated_later("attr.s")}}):
        importlib.import_module("aiohttp.http_parser")
