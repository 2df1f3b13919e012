"""Options: one dataclass field gives a flag, a variable and a key of the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from fastkube import config


@dataclass(frozen=True)
class Some:
    data_dir: str = config.option("here", "Folder.")
    secure_port: int = config.option(6443, "Port.")
    request_timeout_s: float = config.option(60.0, "Timeout.")
    modes: tuple[str, ...] = config.option(("Node", "RBAC"), "Modes.")
    anonymous_auth: bool = config.option(True, "Anonymous.")
    whole: tuple[str, ...] = config.option((), "Values with commas.", whole=True)
    level: str = config.option("a", "Level.", choices=("a", "b"))
    wiring: int = 7


def run(*words: str, **environment: str) -> Some:
    found: list[Some] = []

    @click.command()
    @config.add_flags(Some)
    def command(**values: Any) -> None:
        found.append(config.build(Some, values))

    result = CliRunner().invoke(command, words, env=environment)
    if result.exit_code:
        raise ValueError(result.output)
    return found[0]


def test_defaults_are_those_of_the_dataclass() -> None:
    assert run() == Some()


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (("--data-dir", "/x"), "data_dir", "/x"),
        (("--secure-port=0",), "secure_port", 0),
        (("--request-timeout=1m30s",), "request_timeout_s", 90.0),
        (("--request-timeout", "500ms"), "request_timeout_s", 0.5),
        (("--modes=RBAC",), "modes", ("RBAC",)),
        (("--modes=Node, AlwaysAllow",), "modes", ("Node", "AlwaysAllow")),
        (("--modes=Node", "--modes=RBAC,Webhook"), "modes", ("Node", "RBAC", "Webhook")),
        (("--whole=a,b:c", "--whole=d"), "whole", ("a,b:c", "d")),
        (("--anonymous-auth=false",), "anonymous_auth", False),
        (("--anonymous-auth",), "anonymous_auth", True),
    ],
)
def test_flags(words: tuple[str, ...], field: str, value: Any) -> None:
    assert getattr(run(*words), field) == value


def test_environment_and_precedence() -> None:
    assert run(FASTKUBE_DATA_DIR="/env").data_dir == "/env"
    assert run(FASTKUBE_MODES="A,B").modes == ("A", "B")
    assert run("--data-dir=/flag", FASTKUBE_DATA_DIR="/env").data_dir == "/flag"


@pytest.mark.parametrize("words", [("--secure-port=x",), ("--request-timeout=soon",), ("--level=c",), ("--unknown=1",)])
def test_bad_values_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="Error"):
        run(*words)


def test_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("data-dir: /f\nmodes: [A, B]\n")
    known = {"data-dir": False, "modes": True}
    assert config.read_file(file, known) == {"data-dir": "/f", "modes": ["A", "B"]}
    file.write_text("modes: A,B\n")
    assert config.read_file(file, known) == {"modes": ["A,B"]}
    file.write_text("data_dir: /f\n")
    with pytest.raises(ValueError, match="unknown option 'data_dir'"):
        config.read_file(file, known)
    file.write_text("- a\n")
    with pytest.raises(ValueError, match="mapping"):
        config.read_file(file, known)
