"""A clock that is driven by hand: what takes a day happens in the time that its work takes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubectl_runner import Kubectl

from fastkube.testing import Cluster

HOUR_S = 3600.0

HOURLY = """
apiVersion: batch/v1
kind: CronJob
metadata: {name: hourly}
spec:
  schedule: "0 * * * *"
  successfulJobsHistoryLimit: 100
  jobTemplate:
    spec:
      template:
        spec: {restartPolicy: Never, containers: [{name: c, image: i}]}
"""

SHORT_LIVED = """
apiVersion: batch/v1
kind: Job
metadata: {name: short}
spec:
  ttlSecondsAfterFinished: 600
  template:
    spec: {restartPolicy: Never, containers: [{name: c, image: i}]}
"""


@pytest.fixture(scope="module")
def still() -> Iterator[Cluster]:
    with Cluster(nodes=2, clock="manual") as started:
        yield started


@pytest.fixture
def manual(still: Cluster, request: pytest.FixtureRequest) -> Kubectl:
    still.kubectl("create", "namespace", request.node.name.replace("_", "-")[:60])
    return Kubectl(still, request.node.name.replace("_", "-")[:60])


def until(found: Callable[[], Any]) -> Any:
    """The first true answer; kubectl's own requests take real time, in which the cluster's stands still."""
    deadline = time.monotonic() + 20
    while not (answer := found()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


def test_a_working_day_of_an_hourly_cronjob(still: Cluster, manual: Kubectl) -> None:
    manual("apply", "-f", "-", input=HOURLY)
    still.clock.advance(8 * HOUR_S)
    jobs = manual.json("get", "jobs")["items"]
    assert len(jobs) == 8
    assert all(job["status"].get("succeeded") == 1 for job in jobs[:-1])
    assert all("Ready" in line for line in manual("get", "nodes", "--no-headers").splitlines())
    assert "NotReady" not in manual("get", "nodes")


def test_a_finished_job_lives_its_ttl(still: Cluster, manual: Kubectl) -> None:
    manual("apply", "-f", "-", input=SHORT_LIVED)
    still.clock.advance(30)
    assert manual.json("get", "job", "short")["status"]["succeeded"] == 1
    still.clock.advance(500)
    assert manual("get", "jobs", "-o", "name") == "job.batch/short\n"
    still.clock.advance(200)
    assert until(lambda: manual("get", "jobs", "-o", "name") == "")


def test_a_token_expires(still: Cluster, manual: Kubectl) -> None:
    token = manual("create", "token", "default", "--duration=1h").strip()
    who = ["--token", token, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]
    anyone = ["--kubeconfig", "/dev/null", "--server", still.url, "--certificate-authority", still.ca_file]
    assert still.kubectl(*anyone, *who) == f"system:serviceaccount:{manual.namespace}:default"
    still.clock.advance(1.2 * HOUR_S)
    assert "Unauthorized" in still.kubectl(*anyone, *who, both=True, check=False) or "logged in" in still.kubectl(
        *anyone, *who, both=True, check=False
    )


def test_history_is_given_up_after_a_while(still: Cluster, manual: Kubectl) -> None:
    manual("create", "configmap", "a", "--from-literal=n=1")
    version = manual("get", "configmap", "a", "-o", "jsonpath={.metadata.resourceVersion}")
    listed = f"/api/v1/namespaces/{manual.namespace}/configmaps?resourceVersion={version}&resourceVersionMatch=Exact"
    manual("patch", "configmap", "a", "-p", '{"data":{"n":"2"}}')
    assert '"n":"1"' in manual("get", "--raw", listed)
    still.clock.advance(660)
    assert "is too old" in manual.fails("get", "--raw", listed)
    assert manual("get", "configmap", "a", "-o", "jsonpath={.data.n}") == "2"


def test_time_stands_still_between(still: Cluster) -> None:
    before = still.clock.time()
    time.sleep(0.05)
    assert still.clock.time() == before
    still.clock.advance(1.5)
    assert still.clock.time() == before + 1.5


def test_the_command_drives_it(still: Cluster) -> None:
    def fastkube(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fastkube", "clock", *words]
        return subprocess.run(command, env=still.environment(), capture_output=True, text=True, check=False)

    before = still.clock.time()
    assert fastkube("advance", "1h").stdout.strip() == fastkube("show").stdout.strip() != ""
    assert still.clock.time() == before + HOUR_S
    refused = fastkube("advance", "soon")
    assert (refused.returncode, refused.stderr) == (1, "fastkube: advance: 'soon' is not a duration such as 1m30s\n")


def test_a_real_clock_cannot_be_driven(cluster: Cluster) -> None:
    with pytest.raises(TypeError, match="manual"):
        cluster.clock.advance(1)
    command = [sys.executable, "-m", "fastkube", "clock", "advance", "1h"]
    done = subprocess.run(command, env=cluster.environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "fastkube: this control plane was not started with --clock manual\n")
