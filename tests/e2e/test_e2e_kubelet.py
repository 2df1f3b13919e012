"""Logs, exec, attach and proxies: the way through the API server to a kubelet, with the real kubectl."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
from collections.abc import Iterator

import pytest
from kubectl_runner import Kubectl

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: a
  annotations:
    fastkube.io/logs: |-
      one
      two
      three
    fastkube.io/logs.side: beside
    fastkube.io/exec: |
      - {command: "cat /etc/.*", stdout: "file\\n"}
      - {command: "fail", stderr: "no\\n", exit: 3}
spec:
  containers:
  - {name: main, image: nginx, env: [{name: COLOUR, value: blue}]}
  - {name: side, image: busybox}
"""


@pytest.fixture
def pod(kubectl: Kubectl) -> Kubectl:
    kubectl("apply", "-f", "-", input=POD)
    kubectl("wait", "pod/a", "--for=condition=Ready", "--timeout=60s")
    return kubectl


def test_logs(pod: Kubectl) -> None:
    assert pod("logs", "a", "-c", "main") == "one\ntwo\nthree\n"
    assert pod("logs", "a", "-c", "side") == "beside\n"
    assert pod("logs", "a", "-c", "main", "--tail=1") == "three\n"
    assert pod("logs", "a", "-c", "main", "--limit-bytes=5") == "one\nt"
    stamped = pod("logs", "a", "-c", "main", "--timestamps").splitlines()
    assert [line.split()[1] for line in stamped] == ["one", "two", "three"]
    assert "beside" in pod("logs", "a", "--all-containers", "--prefix")
    assert "previous terminated container" in pod.fails("logs", "a", "-c", "main", "--previous")
    assert "is not valid for pod" in pod.fails("logs", "a", "-c", "none")


def test_logs_are_followed_until_the_pod_is_gone(pod: Kubectl) -> None:
    words = ["kubectl", "-n", pod.namespace, "logs", "-f", "a", "-c", "main"]
    with subprocess.Popen(words, env=pod.cluster.environment(), stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "one\n"
        pod("delete", "pod", "a", "--now")
        assert following.stdout.read() == "two\nthree\n"
        assert following.wait(20) == 0


def test_logs_of_a_job_say_how_it_ended(kubectl: Kubectl) -> None:
    kubectl("create", "job", "once", "--image=busybox")
    kubectl("wait", "job/once", "--for=condition=complete", "--timeout=60s")
    assert "exits with 0" in kubectl("logs", "job/once")


def test_exec(pod: Kubectl) -> None:
    run = ("exec", "a", "-c", "main", "--")
    assert pod(*run, "echo", "hello", "there") == "hello there\n"
    assert pod(*run, "cat", "/etc/passwd") == "file\n"
    assert pod(*run, "hostname") == "a\n"
    assert "COLOUR=blue" in pod(*run, "env")
    assert pod(*run, "sh", "-c", "echo a; echo b") == "a\nb\n"
    with pytest.raises(subprocess.CalledProcessError) as failed:
        pod(*run, "fail")
    assert (failed.value.returncode, failed.value.stderr.splitlines()[0]) == (3, "no")
    with pytest.raises(subprocess.CalledProcessError) as unknown:
        pod(*run, "frobnicate")
    assert unknown.value.returncode == 127
    assert "command not found" in unknown.value.stderr


def test_a_shell_reads_its_commands(pod: Kubectl) -> None:
    assert pod("exec", "-i", "a", "-c", "main", "--", "sh", input="echo one\nhostname\n") == "one\na\n"
    with pytest.raises(subprocess.CalledProcessError) as left:
        pod("exec", "-i", "a", "-c", "main", "--", "sh", input="echo x\nexit 4\n")
    assert (left.value.returncode, left.value.stdout) == (4, "x\n")


def test_attach_to_a_container_that_reads_is_a_shell(kubectl: Kubectl) -> None:
    said = kubectl("run", "a", "--image=busybox", "-i", "--restart=Never", "--rm", "-q", input="echo one\nexit\n")
    assert "one" in said.splitlines()


def test_a_container_prints_what_its_own_command_does(kubectl: Kubectl) -> None:
    kubectl("run", "a", "--image=busybox", "--restart=Never", "--", "echo", "hello")
    kubectl("wait", "pod/a", "--for=jsonpath={.status.containerStatuses[0].started}=true", "--timeout=60s")
    assert kubectl("logs", "a") == "hello\n"


def test_port_forwarding_is_refused_by_name(pod: Kubectl) -> None:
    words = ["kubectl", "-n", pod.namespace, "port-forward", "pod/a", ":80"]
    with subprocess.Popen(words, env=pod.cluster.environment(), stderr=subprocess.PIPE, text=True) as forwarding:
        assert forwarding.stderr is not None
        assert "nothing listens in a simulated Pod" in forwarding.stderr.read()


def test_ephemeral_containers_are_started(pod: Kubectl) -> None:
    for name in ("one", "two"):
        pod("debug", "pod/a", "--image=busybox", "--container", name, "--", "sh")
        started = f"jsonpath={{.status.ephemeralContainerStatuses[?(@.name=='{name}')].state.running.startedAt}}"
        pod("wait", "pod/a", f"--for={started}", "--timeout=60s")
    assert pod("exec", "a", "-c", "two", "--", "echo", "hi") == "hi\n"


@pytest.mark.parametrize("annotation", ["fastkube.io/run-for=0s", "helm.sh/hook=test"])
def test_a_pod_that_is_not_restarted_ends(kubectl: Kubectl, annotation: str) -> None:
    kubectl("run", "brief", "--image=busybox", "--restart=Never", "--annotations", annotation)
    kubectl("wait", "pod/brief", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    assert "exits with 0" in kubectl("logs", "brief")


def test_a_nodes_kubelet_by_proxy(pod: Kubectl) -> None:
    node = pod("get", "pod", "a", "-o", "jsonpath={.spec.nodeName}")
    assert pod("get", "--raw", f"/api/v1/nodes/{node}/proxy/healthz") == "ok"
    pods = json.loads(pod("get", "--raw", f"/api/v1/nodes/{node}/proxy/pods"))["items"]
    assert "a" in {one["metadata"]["name"] for one in pods}
    assert {one["spec"]["nodeName"] for one in pods} == {node}
    summary = json.loads(pod("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))
    assert summary["node"]["nodeName"] == node


@pytest.fixture
def web() -> Iterator[int]:
    """A web server on this machine; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"{self.path} {self.headers.get('Authorization')}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


def test_a_service_by_proxy(kubectl: Kubectl, web: int) -> None:
    address = kubectl("get", "endpoints", "-n", "default", "kubernetes", "-o", "jsonpath={.subsets[0].addresses[0].ip}")
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "out"}}
    kubectl("create", "-f", "-", input=json.dumps({**service, "spec": {"ports": [{"port": 80, "name": "http"}]}}))
    subsets = [{"addresses": [{"ip": address}], "ports": [{"port": web, "name": "http"}]}]
    endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "out"}, "subsets": subsets}
    kubectl("create", "-f", "-", input=json.dumps(endpoints))
    path = f"/api/v1/namespaces/{kubectl.namespace}/services"
    assert kubectl("get", "--raw", f"{path}/out:http/proxy/a/b?c=d") == "/a/b?c=d None"
    assert kubectl("get", "--raw", f"{path}/out:80/proxy/") == "/ None"
    assert "no service port" in kubectl.fails("get", "--raw", f"{path}/out:99/proxy/")


def test_top_shows_what_containers_use(kubectl: Kubectl) -> None:
    used = {"fastkube.io/usage": "cpu=250m,memory=64Mi"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "busy", "annotations": used, "labels": {"x": "y"}}}
    kubectl("create", "-f", "-", input=json.dumps({**pod, "spec": {"containers": [{"name": "c", "image": "i"}]}}))
    kubectl("wait", "pod/busy", "--for=condition=Ready", "--timeout=60s")
    kubectl("wait", "apiservice/v1beta1.metrics.k8s.io", "--for=condition=Available", "--timeout=60s")
    assert kubectl("top", "pod", "busy", "--no-headers").split() == ["busy", "250m", "64Mi"]
    assert kubectl("top", "pod", "-l", "x=y", "--containers", "--no-headers").split() == ["busy", "c", "250m", "64Mi"]
    nodes = kubectl("top", "nodes", "--no-headers").splitlines()
    assert len(nodes) == 3
    busy = kubectl("get", "pod", "busy", "-o", "jsonpath={.spec.nodeName}")
    assert next(int(line.split()[1].rstrip("m")) for line in nodes if line.startswith(busy)) >= 250


def test_an_autoscaler_follows_the_use(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=nginx")
    kubectl("set", "resources", "deployment/web", "--requests=cpu=100m")
    annotations = {"fastkube.io/usage": "cpu=200m"}
    patch = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    kubectl("patch", "deployment", "web", "-p", json.dumps(patch))
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl("wait", "apiservice/v1beta1.metrics.k8s.io", "--for=condition=Available", "--timeout=60s")
    kubectl("autoscale", "deployment", "web", "--cpu-percent=100", "--max=3")
    kubectl("wait", "deployment/web", "--for=jsonpath={.spec.replicas}=2", "--timeout=60s")
