"""`python -m fastkube` is the fastkube command; its children (fastkube/cluster.py, frontends.py) start here too."""

import gc
import sys

from fastkube import STARTING_THRESHOLDS


def main() -> None:
    """A child has its orders on standard input and no flags, so it does not wait for those of all commands."""
    gc.set_threshold(*STARTING_THRESHOLDS)
    if sys.argv[1:] == ["components"]:
        from fastkube.cluster import components_from_stdin
        from fastkube.process import serve

        serve(components_from_stdin)
    else:
        from fastkube.cli import main as command

        command()


if __name__ == "__main__":
    main()
