"""A simulated fleet: the life of nodes and Pods as data."""
