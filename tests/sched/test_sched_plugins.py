"""Plugins of others: the example of docs/scheduler.md, installed and run as it stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from schedobjects import node, pod

from fastkube.cli import main
from fastkube.scheduler import config as configs
from fastkube.scheduler.config_fields import ConfigError
from fastkube.scheduler.framework import Cycle, Plugin
from fastkube.scheduler.nodes import NodeInfo
from fastkube.scheduler.offline import OfflineScheduler
from fastkube.scheduler.profile import known_plugins

Object = dict[str, Any]

DOCUMENT = (Path(__file__).parents[2] / "docs" / "scheduler.md").read_text()


def example(language: str) -> str:
    return str(re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)[0])


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package as pip would leave it."""
    (tmp_path / "licensed.py").write_text(example("python"))
    info = tmp_path / "licensed-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: licensed\nVersion: 1.0\n")
    group, entry = example("toml").strip().splitlines()
    name = group.removeprefix('[project.entry-points."').removesuffix('"]')
    (info / "entry_points.txt").write_text(f"[{name}]\n{entry.replace(chr(34), '')}\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("installed")
def test_the_example_filters_and_scores(tmp_path: Path) -> None:
    cluster, config = tmp_path / "cluster.json", tmp_path / "config.yaml"
    label = "example.com/license"
    nodes = [node("free"), node("one", {label: "one"}), node("site", {label: "site"})]
    cluster.write_text(json.dumps({"kind": "List", "items": [*nodes, pod("p")]}))
    config.write_text(example("yaml"))
    words = ["scheduler", "explain", "p", "--cluster", str(cluster), "--scheduler-config", str(config), "-o", "json"]
    done = CliRunner().invoke(main, words)
    told = {each["node"]: each for each in json.loads(done.output)["nodes"]}
    assert (told["free"]["plugin"], told["free"]["reasons"]) == ("LicensedNodes", ["node(s) had no license"])
    assert [told[name]["scores"]["LicensedNodes"] for name in ("one", "site")] == [0, 500]
    assert json.loads(done.output)["best"] == ["site"]


@pytest.mark.usefixtures("installed")
def test_it_is_not_used_unless_a_configuration_says_so() -> None:
    scheduler = OfflineScheduler([node("free")])
    assert scheduler.decide(scheduler.cache.parse(pod())).node == "free"
    assert "LicensedNodes" in known_plugins()


class Picky(Plugin):
    name = "Picky"

    def __init__(self, args: Any, handle: Any, weight: int = 1) -> None:
        super().__init__(args, handle, weight)
        if "color" not in args:
            raise ValueError("color: Required value")

    def permit(self, cycle: Cycle, node: NodeInfo) -> float:
        return 0.0


def profile(**fields: Any) -> configs.SchedulerConfig:
    return configs.parse({"apiVersion": configs.API_VERSION, "kind": configs.KIND, "profiles": [fields]})


def test_arguments_that_a_plugin_refuses_are_a_fault_of_the_configuration() -> None:
    enabled = {"multiPoint": {"enabled": [{"name": "Picky"}]}}
    known = {**known_plugins(), "Picky": Picky}
    with pytest.raises(ConfigError, match='initializing plugin "Picky": color: Required value'):
        OfflineScheduler((), profile(plugins=enabled), plugins=known)


def test_a_plugin_that_refuses_a_whole_pod_is_told_of(tmp_path: Path) -> None:
    from fastkube.scheduler.framework import Rejected

    class Never(Plugin):
        name = "Never"

        def pre_filter(self, cycle: Cycle) -> None:
            raise Rejected("not today")

    told = profile(plugins={"preFilter": {"enabled": [{"name": "Never"}]}})
    scheduler = OfflineScheduler([node("n")], told, plugins={**known_plugins(), "Never": Never})
    assert scheduler.decide(scheduler.cache.parse(pod())).message == "0/1 nodes are available: not today."
