"""fastkube: a drop-in, lightweight Kubernetes control plane."""

from fastkube import _pure

__version__ = "0.1.0"

_pure.install_if_asked()
