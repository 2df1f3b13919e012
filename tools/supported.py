#!/usr/bin/env python3
"""Writes docs/supported.md: what is served and what is refused by name, read off the code that serves and refuses.

tools/supported.py            writes the page
tools/supported.py --check    fails when the committed page is another one (tests/tidy)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "supported.md"
sys.path.insert(0, str(PAGE.parent.parent))

from fastkube.api.catalog import Catalog, ResourceType  # noqa: E402
from fastkube.config import options_of  # noqa: E402
from fastkube.controllers.builtin import CONTROLLERS, NOT_HERE  # noqa: E402
from fastkube.controllers.builtin import UNSUPPORTED as UNSUPPORTED_CONTROLLERS  # noqa: E402
from fastkube.registry.strategies import STRATEGIES  # noqa: E402
from fastkube.scheduler.plugins import BUILT_IN  # noqa: E402
from fastkube.server.admission.chain import IDLE, PLUGINS, UNSUPPORTED  # noqa: E402
from fastkube.server.options import AUTHORIZATION_MODES  # noqa: E402
from fastkube.server.upstream_options import UpstreamOptions  # noqa: E402

REFUSED = {
    "CBOR bodies and answers": "415 and 406, as kube-apiserver answers with the feature off",
    "Port forwarding to Pods of simulated nodes": "501 of the simulated kubelet: nothing listens in such a Pod",
    "exec and attach over SPDY to simulated nodes": "403 of the simulated kubelet: WebSocket only (kubectl's default)",
    "Encryption at rest by a KMS": "start-up error for --encryption-provider-config",
}
"""What a user of Kubernetes might expect, and how it is said that it is not there."""


HEAD = """# What is supported

Written by `tools/supported.py` from the code that serves and refuses; a test keeps it true. Kubernetes 1.36 is the
measure: what is not named here as refused is meant to behave as there, and a difference is a bug.

## Resources

Every resource has the verbs that kube-apiserver gives it, in JSON, YAML, protobuf and msgpack, with watches, tables,
patches of all kinds and server-side apply. *Own rules* says whether defaults, validation and immutability beyond the
schema are those of the kind.
"""


def page() -> Iterator[str]:
    """The lines of the page."""
    yield from HEAD.splitlines()
    yield ""
    yield "| group | resource | versions | subresources | own rules |"
    yield "| --- | --- | --- | --- | --- |"
    for rtype in sorted(Catalog.builtin().all(), key=lambda one: (one.group, one.resource)):
        yield _row(rtype)
    yield ""
    yield "Custom resources and aggregated API servers are served beside these."
    yield ""
    yield from _listed(
        "Admission plugins", [entry.name + ("" if entry.by_default else " (off by default)") for entry in PLUGINS]
    )
    yield from _listed("Authorization modes", list(AUTHORIZATION_MODES))
    yield from _listed("Controllers", list(CONTROLLERS))
    yield from _listed("Scheduler plugins", [plugin.__name__ for plugin in BUILT_IN])
    yield "## Flags of kube-apiserver that leave no choice"
    yield ""
    yield "Every flag of kube-apiserver is known. These are taken where they ask for what is so anyway, else refused:"
    yield ""
    yield "| flag | what is taken |"
    yield "| --- | --- |"
    for entry in options_of(UpstreamOptions):
        yield f"| `--{entry.flag}` | {entry.help} |"
    yield ""
    yield "## Refused by name"
    yield ""
    yield "| what | how |"
    yield "| --- | --- |"
    for what, how in REFUSED.items():
        yield f"| {what} | {how} |"
    yield f"| {', '.join(sorted(UNSUPPORTED_CONTROLLERS))} | start-up error for `--controllers` |"
    for name, why in NOT_HERE.items():
        yield f"| {name} | passed over with a warning, as by kube-controller-manager: {why} |"
    yield f"| {', '.join(sorted(UNSUPPORTED))} | start-up error for `--enable-admission-plugins` |"
    for name, why in IDLE.items():
        yield f"| {name} | taken by name, checks nothing: {why} |"


def _row(rtype: ResourceType) -> str:
    ruled = "yes" if (rtype.group, rtype.resource) in STRATEGIES or not rtype.persisted else "schema only"
    cells = (
        rtype.group or "core",
        rtype.resource,
        ", ".join(rtype.versions),
        ", ".join(sorted(rtype.subresources)),
        ruled,
    )
    return f"| {' | '.join(cells)} |"


def _listed(title: str, names: list[str]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield ", ".join(names) + "."
    yield ""


def main() -> None:
    text = "\n".join(page()) + "\n"
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        sys.exit("docs/supported.md is not what the code says: run tools/supported.py")


if __name__ == "__main__":
    main()
