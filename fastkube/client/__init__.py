"""A client, informer and work queue for any Kubernetes API server."""
