#!/usr/bin/env python3
"""Make fastkube/registry/generated/bootstrap.json: what a fresh server holds, from a dump of a real one.

    tools/generate_bootstrap.py --facts FOLDER [--check]

Left out is what depends on the host or the flags (the `kubernetes` Service and its addresses, the ServiceCIDR, leases):
fastkube/registry/bootstrap.py makes those. `--check` fails when the committed file differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

OUTPUT = Path(__file__).resolve().parent.parent / "fastkube" / "registry" / "generated" / "bootstrap.json"
OF_THE_HOST = {
    "v1/configmaps",
    "v1/endpoints",
    "v1/services",
    "coordination.k8s.io/v1/leases",
    "discovery.k8s.io/v1/endpointslices",
    "networking.k8s.io/v1/ipaddresses",
    "networking.k8s.io/v1/servicecidrs",
}


def generate(facts: Path) -> str:
    dump = json.loads((facts / "bootstrap.json").read_text())
    kept = {key: value for key, value in dump.items() if key not in OF_THE_HOST}
    return json.dumps(kept, separators=(",", ":"), sort_keys=False) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--facts", type=Path, required=True, help="folder with bootstrap.json of a real server")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the file would change")
    options = parser.parse_args()
    text = generate(options.facts)
    if options.check:
        return 0 if OUTPUT.read_text() == text else 1
    OUTPUT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
