"""Which Kubernetes API is served: what /version answers.

These are the facts of the kube-apiserver whose behaviour is served, all of them: clients and tools compare them to
learn what they may use, and find nothing here that they do not find there. fastkube's own version is in /metrics
(kubernetes_build_info) and in `fastkube version`.
"""

from __future__ import annotations

VERSION_INFO: dict[str, str] = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "98b35193b2ac7a23a673325f5e9b830ecd5ba406",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "go1.27.3-X:nojsonv2",
    "compiler": "gc",
    "platform": "linux/amd64",
}
