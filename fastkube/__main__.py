"""`python -m fastkube` is the fastkube command."""

from fastkube.cli import main

if __name__ == "__main__":
    main()
