"""The HTTP shell: the only entrance to the state."""

from fastkube import lazy

lazy.package("aiohttp")
lazy.package("attr", s="_make.attrs")  # all that aiohttp asks of it
