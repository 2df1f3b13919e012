"""A client, informers and work queues for any Kubernetes API server.

Names are loaded when first asked for: reading the options of a component must not cost TLS and codecs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastkube.client.client import Client, Unreachable
    from fastkube.client.codec import WatchEvent
    from fastkube.client.factory import InformerFactory
    from fastkube.client.feed import Feeds
    from fastkube.client.informer import Informer, drop_managed_fields
    from fastkube.client.kubeconfig import ConfigError, Connection
    from fastkube.client.resource import Resource, make_key, object_key, split_key
    from fastkube.client.watch import Watch, WatchLost
    from fastkube.client.workqueue import ShutDown, WorkQueue

_MODULES = {
    "client": ("Client", "Unreachable"),
    "codec": ("WatchEvent",),
    "factory": ("InformerFactory",),
    "feed": ("Feeds",),
    "informer": ("Informer", "drop_managed_fields"),
    "kubeconfig": ("ConfigError", "Connection"),
    "resource": ("Resource", "make_key", "object_key", "split_key"),
    "watch": ("Watch", "WatchLost"),
    "workqueue": ("ShutDown", "WorkQueue"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Client",
    "ConfigError",
    "Connection",
    "Feeds",
    "Informer",
    "InformerFactory",
    "Resource",
    "ShutDown",
    "Unreachable",
    "Watch",
    "WatchEvent",
    "WatchLost",
    "WorkQueue",
    "drop_managed_fields",
    "make_key",
    "object_key",
    "split_key",
]


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = found
    return found
