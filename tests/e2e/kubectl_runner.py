"""kubectl in one namespace, as the end-to-end tests use it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from fastkube.testing import Cluster


class Kubectl:
    """kubectl in one namespace. Calling it gives standard output; a failure raises with what kubectl said."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def __call__(self, *words: str, input: str | None = None) -> str:
        # what other tests have defined and removed again is not to be remembered here
        own = {"KUBECACHEDIR": str(self.cluster.data_dir / "kubectl" / self.namespace)}
        return self.cluster.kubectl("-n", self.namespace, *words, input=input, environment=own)

    def fails(self, *words: str, input: str | None = None) -> str:
        """Standard error of a command that must fail."""
        with pytest.raises(subprocess.CalledProcessError) as caught:
            self(*words, input=input)
        return str(caught.value.stderr)

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "-o", "json"))
