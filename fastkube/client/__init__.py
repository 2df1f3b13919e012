"""A client, informers and work queues for any Kubernetes API server."""

from fastkube.client.client import Client, Unreachable
from fastkube.client.informer import (
    Informer,
    InformerFactory,
    drop_managed_fields,
    make_key,
    object_key,
    split_key,
)
from fastkube.client.kubeconfig import ConfigError, Connection
from fastkube.client.resource import Resource
from fastkube.client.watch import Watch, WatchEvent, WatchLost
from fastkube.client.workqueue import ShutDown, WorkQueue

__all__ = [
    "Client",
    "ConfigError",
    "Connection",
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
