"""The table of strategies: each module is named in it with exactly the kinds that it is for."""

import importlib
from pathlib import Path

import fastkube.registry
from fastkube.registry.strategies import STRATEGIES
from fastkube.registry.strategy import Strategy

FOLDER = Path(fastkube.registry.__file__).parent


def modules_with_strategies() -> list[str]:
    files = [*FOLDER.glob("strategies/*.py"), *FOLDER.glob("custom/*.py")]
    named = [file for file in files if file.stem != "__init__" and "\nSTRATEGIES: " in file.read_text()]
    return sorted(f"fastkube.registry.{file.parent.name}.{file.stem}" for file in named)


def test_a_strategy_is_found_for_each_kind_that_a_module_has_one_for() -> None:
    expected: dict[tuple[str, str], Strategy] = {}
    for name in modules_with_strategies():
        expected |= importlib.import_module(name).STRATEGIES
    assert dict(STRATEGIES) == expected


def test_a_kind_without_a_strategy_has_none() -> None:
    assert STRATEGIES.get(("", "componentstatuses")) is None
