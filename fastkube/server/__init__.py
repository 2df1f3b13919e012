"""The HTTP shell: the only entrance to the state."""

from fastkube import lazy

lazy.http_parser()
