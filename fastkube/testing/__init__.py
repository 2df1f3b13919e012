"""Throw-away control planes for tests: `from fastkube.testing import Cluster`, and a pytest plugin with fixtures.

with Cluster(nodes=3) as cluster:
    cluster.kubectl("apply", "-f", "manifests/")
    client = kubernetes.config.new_client_from_config(str(cluster.kubeconfig))
"""

from fastkube.testing.cluster import Cluster

__all__ = ["Cluster"]
