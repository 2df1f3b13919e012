"""One file a controller: a pure reconcile from a view to actions; and one runner for all of them.

`CONTROLLERS` (all of them, by name) and `ControllerManager` are loaded when first asked for: reading options must not
cost the import of every controller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastkube.controllers.builtin import CONTROLLERS
    from fastkube.controllers.manager import ControllerManager

__all__ = ["CONTROLLERS", "ControllerManager"]


def __getattr__(name: str) -> Any:
    if name == "CONTROLLERS":
        from fastkube.controllers.builtin import CONTROLLERS

        return CONTROLLERS
    if name == "ControllerManager":
        from fastkube.controllers.manager import ControllerManager

        return ControllerManager
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
