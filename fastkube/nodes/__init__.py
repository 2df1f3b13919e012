"""A simulated fleet: the life of nodes and Pods as data."""

from fastkube import lazy

lazy.package("aiohttp")
lazy.package("attr", s="_make.attrs")  # all that aiohttp asks of it
