"""`python -m fastkube` is the command; its children (commands.py, frontends.py, server/pki.py) start here as well."""

import gc
import sys

from fastkube import STARTING_THRESHOLDS


def main() -> None:
    """Children of the command take no flags, so that they do not wait for those of all commands."""
    gc.set_threshold(*STARTING_THRESHOLDS)
    if sys.argv[1:] == ["components"]:
        from fastkube.commands import components_from_stdin
        from fastkube.process import serve

        serve(components_from_stdin)
    elif sys.argv[1:2] == ["pki"]:
        from fastkube.server.pki import make_beside

        make_beside(*sys.argv[2:])
    else:
        from fastkube.cli import main as command

        command()


if __name__ == "__main__":
    main()
