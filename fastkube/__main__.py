"""`python -m fastkube` is the command."""

import gc

from fastkube import STARTING_THRESHOLDS


def main() -> None:
    """The collector rests first: importing the command is the most of many a start."""
    gc.set_threshold(*STARTING_THRESHOLDS)
    from fastkube.cli import main as command

    command()


if __name__ == "__main__":
    main()
