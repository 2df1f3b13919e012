"""A simulated fleet: the life of nodes and Pods as data."""

from fastkube import lazy

lazy.package("aiohttp")
