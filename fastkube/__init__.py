"""fastkube: a drop-in, lightweight Kubernetes control plane."""

from fastkube import _pure

COLLECTOR_THRESHOLDS = (50_000, 20, 100)
"""Objects decoded from requests and watches die by their reference counts: with CPython's own thresholds (700, 10, 10)
the collector, which finds next to nothing, takes a quarter of the time of a busy server or scheduler, and a tenth of
that of a start."""

STARTING_THRESHOLDS = (1_000_000, 20, 100)
"""Until a process is ready: what a start makes lives as long as the process, so that looking at it is for nothing."""

__version__ = "0.1.0"

_pure.install_if_asked()
