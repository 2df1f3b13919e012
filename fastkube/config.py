"""Options: each is written once, as a field of a frozen dataclass, and from there becomes a flag, an environment
variable, a key of the YAML file and a line of documentation.

    @dataclass(frozen=True)
    class StoreOptions:
        data_dir: str = option("/var/lib/fastkube", "Folder of the store and of the certificates.")

gives `--data-dir`, `FASTKUBE_DATA_DIR` and `data-dir:` in the file. A field in seconds ends in `_s`, its flag does not,
and takes durations as upstream's flags do (`--request-timeout=1m30s`). A flag wins over the environment, that over the
file, the file over the default. An unknown key in the file is an error: a typo must not go unnoticed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

Options = TypeVar("Options")


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    metavar: str = "",
    flag: str = "",
    secret: bool = False,
    whole: bool = False,
) -> Any:
    """A dataclass field that is an option. A tuple default makes a comma-separated, repeatable flag; `whole` one whose
    values may have commas.

    `flag` names the flag where it is not the field's name with dashes.
    """
    metadata = {
        "help": help, "choices": choices, "metavar": metavar, "flag": flag, "secret": secret, "whole": whole
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class OptionInfo:
    """What is known of one option: everything that a flag, a variable or a line of documentation needs."""

    field: str
    flag: str
    kind: type
    repeated: bool
    default: Any
    help: str
    choices: tuple[str, ...]
    metavar: str
    whole: bool

    @property
    def is_duration(self) -> bool:
        return self.kind is float and self.field.endswith("_s")

    @property
    def variable(self) -> str:
        return "FASTKUBE_" + self.flag.upper().replace("-", "_")


_OPTIONS: dict[type, tuple[OptionInfo, ...]] = {}


def options_of(cls: type) -> tuple[OptionInfo, ...]:
    """The options of a dataclass, in their order; fields made without `option` are wiring, not options."""
    known = _OPTIONS.get(cls)
    if known is None:
        known = _OPTIONS[cls] = tuple(_options_of(cls))
    return known


def _options_of(cls: type) -> Iterator[OptionInfo]:
    hints = get_type_hints(cls)
    for entry in dataclasses.fields(cls):
        if "help" not in entry.metadata:
            continue
        hint, repeated = hints[entry.name], False
        if get_origin(hint) is tuple:
            hint, repeated = get_args(hint)[0], True
        elif get_args(hint):  # X | None
            hint = next(part for part in get_args(hint) if part is not type(None))
        yield OptionInfo(
            field=entry.name,
            flag=entry.metadata.get("flag") or entry.name.removesuffix("_s").replace("_", "-"),
            kind=cast(type, hint),
            repeated=repeated,
            default=entry.default,
            help=entry.metadata["help"],
            choices=entry.metadata.get("choices", ()),
            metavar=entry.metadata.get("metavar", ""),
            whole=entry.metadata.get("whole", False),
        )


def build(cls: type[Options], values: dict[str, Any]) -> Options:
    """An instance from click's values; those of other classes are left alone."""
    names = {entry.field for entry in options_of(cls)}
    return cls(**{name: value for name, value in values.items() if name in names})


def add_flags(*classes: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a click command the flags of these dataclasses. The same flag twice is given once."""
    import click

    class Duration(click.ParamType):  # type: ignore[type-arg]
        name = "duration"

        def convert(self, value: Any, param: Any, ctx: Any) -> float:
            try:
                return parse_duration(str(value))
            except ValueError as error:
                self.fail(str(error), param, ctx)

    def kind_of(entry: OptionInfo) -> Any:
        if entry.is_duration:
            return Duration()
        if entry.choices:
            return click.Choice(entry.choices)
        return {bool: click.BOOL, int: click.INT, float: click.FLOAT}.get(entry.kind, click.STRING)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        seen: set[str] = set()
        entries = [entry for cls in classes for entry in options_of(cls)]
        for entry in reversed([e for e in entries if not (e.flag in seen or seen.add(e.flag))]):  # type: ignore[func-returns-value]
            attributes: dict[str, Any] = {"help": entry.help, "envvar": entry.variable, "show_envvar": False}
            if entry.kind is bool:
                # as upstream's: `--flag`, `--flag=true` and `--flag=false` all work
                attributes |= {"is_flag": False, "flag_value": True}
            if entry.repeated:
                # as upstream's: given again, a flag adds to its list
                attributes["callback"] = _taken_whole if entry.whole else _split
                attributes["multiple"] = True
                attributes["metavar"] = entry.metavar or "LIST"
                attributes["default"] = [str(part) for part in entry.default or ()]
            else:
                attributes["default"] = entry.default
            if entry.metavar:
                attributes["metavar"] = entry.metavar
            shown = entry.default not in ("", None, (), False)
            option_type = click.STRING if entry.repeated else kind_of(entry)
            command = click.option(f"--{entry.flag}", entry.field, type=option_type, show_default=shown, **attributes)(
                command
            )
        return command

    return decorate


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us)")
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


def parse_duration(text: str) -> float:
    """Seconds of Go's duration form ("1m30s", "500ms") or of a plain number; raises ValueError."""
    parts = _DURATION.findall(text)
    if parts and _DURATION.sub("", text) == "":
        return sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a duration such as 1m30s") from None


def _split(_context: Any, _parameter: Any, values: Iterable[str]) -> tuple[str, ...]:
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def _taken_whole(_context: Any, _parameter: Any, values: Iterable[str]) -> tuple[str, ...]:
    return tuple(filter(None, values))


def read_file(path: Path, known: Mapping[str, bool]) -> dict[str, Any]:
    """The YAML file as {flag: value}, lists for those that `known` says are lists; ValueError for other keys."""
    import yaml

    document = yaml.safe_load(path.read_text()) or {}
    if not isinstance(document, dict):
        raise ValueError(f"{path}: a mapping of options to values is expected")
    values = {}
    for key, value in document.items():
        if key not in known:
            raise ValueError(f"{path}: unknown option {key!r}")
        is_list = isinstance(value, list)
        values[key] = (value if is_list else [str(value)]) if known[key] else value
    return values
