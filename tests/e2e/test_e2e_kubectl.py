"""The real kubectl against a running control plane: what its users do every day."""

from __future__ import annotations

import json
import subprocess
import textwrap
import time
import urllib.request
from pathlib import Path

import pytest
from kubectl_runner import Kubectl

from fastkube.testing import Cluster

MANIFESTS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {key: s3cret}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: "nginx:1.27", ports: [{containerPort: 8080}]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: busybox}]
"""


def test_deployment_from_create_to_delete(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=nginx", "--replicas=3")
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    wide = kubectl("get", "pods", "-o", "wide")
    assert wide.count("Running") == 3
    assert wide.count("1/1") == 3
    assert wide.count("node-") == 3
    assert kubectl("get", "deployment", "web").split("\n")[1].split()[:4] == ["web", "3/3", "3", "3"]

    kubectl("scale", "deployment/web", "--replicas=5")
    kubectl("wait", "deployment/web", "--for=jsonpath={.status.readyReplicas}=5", "--timeout=60s")
    kubectl("scale", "deployment/web", "--replicas=1")
    kubectl("wait", "deployment/web", "--for=jsonpath={.status.replicas}=1", "--timeout=60s")

    kubectl("delete", "deployment", "web")
    deadline = time.monotonic() + 20
    while kubectl("get", "pods,replicasets", "-o", "name") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert kubectl("get", "pods,replicasets", "-o", "name") == ""


def test_rollout_history_undo_pause_and_restart(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=nginx:1.26", "--replicas=3")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl("set", "image", "deployment/web", "nginx=nginx:1.27")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    history = kubectl("rollout", "history", "deployment/web")
    assert [line.split()[0] for line in history.splitlines() if line[:1].isdigit()] == ["1", "2"]
    kubectl("rollout", "undo", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert kubectl("get", "deployment", "web", "-o", "jsonpath={..image}") == "nginx:1.26"
    kubectl("rollout", "pause", "deployment/web")
    kubectl("set", "image", "deployment/web", "nginx=nginx:1.28")
    images = kubectl("get", "replicasets", "-o", "jsonpath={..image}").split()
    assert "nginx:1.28" not in images
    kubectl("rollout", "resume", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl("rollout", "restart", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    pods = kubectl.json("get", "pods", "--field-selector=status.phase=Running")["items"]
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {"nginx:1.28"}


def test_apply_a_multi_document_file_and_change_it(kubectl: Kubectl) -> None:
    said = kubectl("apply", "-f", "-", input=MANIFESTS)
    assert said.count("created") == 5
    assert kubectl("apply", "-f", "-", input=MANIFESTS).count("unchanged") >= 4
    kubectl("wait", "job/once", "--for=condition=complete", "--timeout=60s")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    changed = MANIFESTS.replace("blue", "red").replace("replicas: 2", "replicas: 3")
    said = kubectl("apply", "-f", "-", input=changed)
    assert "configmap/settings configured" in said
    assert "deployment.apps/web configured" in said
    assert kubectl("get", "configmap", "settings", "-o", "jsonpath={.data.colour}") == "red"
    everything = kubectl("get", "all")
    for name in ("pod/web-", "service/web", "deployment.apps/web", "replicaset.apps/web-", "job.batch/once"):
        assert name in everything
    kubectl("delete", "-f", "-", input=MANIFESTS)
    assert "NotFound" in kubectl.fails("get", "deployment", "web")


def test_diff_and_server_side_dry_run_change_nothing(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", input=MANIFESTS)
    changed = MANIFESTS.replace("colour: blue", "colour: green")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        kubectl("diff", "-f", "-", input=changed)
    assert caught.value.returncode == 1
    assert "+  colour: green" in caught.value.stdout
    kubectl("apply", "--dry-run=server", "-f", "-", input=changed)
    assert kubectl("get", "configmap", "settings", "-o", "jsonpath={.data.colour}") == "blue"


def test_service_and_endpoints_follow_pods(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=nginx", "--replicas=2", "--port=8080")
    kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    service = kubectl.json("get", "service", "web")
    assert service["spec"]["clusterIP"].startswith("10.")
    deadline, ready = time.monotonic() + 20, []
    while len(ready) < 2 and time.monotonic() < deadline:
        slices = kubectl.json("get", "endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
        ready = [each for one in slices for each in one["endpoints"] if each["conditions"]["ready"]]
    pods = kubectl.json("get", "pods", "-l", "app=web")["items"]
    assert {each["addresses"][0] for each in ready} == {pod["status"]["podIP"] for pod in pods}


def test_label_annotate_patch_edit_replace(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=1")
    kubectl("label", "configmap", "c", "tier=back")
    kubectl("annotate", "configmap", "c", "note=hello")
    assert kubectl("get", "configmap", "-l", "tier=back", "-o", "name") == "configmap/c\n"
    assert "already has a value" in kubectl.fails("label", "configmap", "c", "tier=front")
    for kind, body in (
        ("strategic", '{"data":{"b":"2"}}'),
        ("merge", '{"data":{"a":null}}'),
        ("json", '[{"op":"add","path":"/data/c","value":"3"}]'),
    ):
        kubectl("patch", "configmap", "c", "--type", kind, "-p", body)
    assert kubectl.json("get", "configmap", "c")["data"] == {"b": "2", "c": "3"}
    editor = tmp_path / "editor.sh"
    editor.write_text('#!/bin/sh\nsed -i \'s/b: "2"/b: "two"/\' $1\n')
    editor.chmod(0o755)
    said = kubectl.cluster.kubectl(
        "-n", kubectl.namespace, "edit", "configmap", "c", environment={"EDITOR": str(editor)}
    )
    assert "edited" in said
    assert kubectl.json("get", "configmap", "c")["data"]["b"] == "two"
    document = kubectl.json("get", "configmap", "c")
    document["data"] = {"only": "this"}
    kubectl("replace", "-f", "-", input=json.dumps(document))
    assert "the object has been modified" in kubectl.fails("replace", "-f", "-", input=json.dumps(document))


def test_output_formats_and_sorting(kubectl: Kubectl) -> None:
    for name in ("b", "a", "c"):
        kubectl("create", "configmap", name, "--from-literal=k=v")
    names = "--sort-by=.metadata.name"
    assert kubectl("get", "cm", names, "-o", "jsonpath={.items[?(@.data.k)].metadata.name}") == "a b c"
    assert kubectl("get", "cm", "a", "-o", "yaml").startswith("apiVersion: v1\n")
    assert kubectl("get", "cm", "a", "-o", "custom-columns=N:.metadata.name").split() == ["N", "a"]
    assert kubectl("get", "cm", "a", "-o", "go-template={{.data.k}}") == "v"
    assert "kube-root-ca.crt" in kubectl("get", "cm", "--no-headers")


def test_describe_and_events(kubectl: Kubectl) -> None:
    kubectl("run", "a", "--image=nginx")
    kubectl("wait", "pod/a", "--for=condition=Ready", "--timeout=60s")
    described = kubectl("describe", "pod", "a")
    assert "Successfully assigned" in described
    assert "Status:           Running" in described
    assert "Scheduled" in kubectl("get", "events")
    assert "node-0" in kubectl("describe", "nodes")


def test_unschedulable_pod_says_why(kubectl: Kubectl) -> None:
    big = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "big"}}
    requests = {"requests": {"cpu": "4000"}}
    big["spec"] = {"containers": [{"name": "c", "image": "i", "resources": requests}]}  # type: ignore[assignment]
    kubectl("create", "-f", "-", input=json.dumps(big))
    kubectl("wait", "pod/big", "--for=condition=PodScheduled=False", "--timeout=60s")
    message = kubectl("get", "pod", "big", "-o", "jsonpath={.status.conditions[0].message}")
    assert message.startswith("0/3 nodes are available: 3 Insufficient cpu.")
    deadline = time.monotonic() + 10
    while "FailedScheduling" not in kubectl("get", "events") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "FailedScheduling" in kubectl("get", "events")


def test_cordon_drain_and_taint(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=nginx", "--replicas=6")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    try:
        kubectl("drain", "node-0", "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=60s")
        kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        placed = kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}").split()
        assert "node-0" not in placed
        assert "SchedulingDisabled" in kubectl("get", "node", "node-0")
    finally:
        kubectl("uncordon", "node-0")
    kubectl("taint", "node", "node-1", "only=me:NoSchedule")
    assert "only=me:NoSchedule" in kubectl("describe", "node", "node-1")
    kubectl("taint", "node", "node-1", "only-")


def test_watch_prints_changes(kubectl: Kubectl, cluster: Cluster) -> None:
    words = [
        "kubectl",
        "--kubeconfig",
        str(cluster.kubeconfig),
        "-n",
        kubectl.namespace,
        "get",
        "pods",
        "-w",
        "--no-headers",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as watching:
        kubectl("run", "a", "--image=nginx")
        assert watching.stdout is not None
        seen = []
        for line in watching.stdout:
            seen.append(line.split()[2])
            if seen[-1] == "Running":
                break
        watching.terminate()
    assert seen[-1] == "Running"


def test_discovery_explain_raw_and_version(kubectl: Kubectl) -> None:
    resources = kubectl("api-resources")
    for line in ("deployments", "horizontalpodautoscalers", "endpointslices"):
        assert line in resources
    assert "apps/v1" in kubectl("api-versions")
    assert "replicas" in kubectl("explain", "deployment.spec")
    assert json.loads(kubectl("get", "--raw", "/version"))["minor"] == "36"
    assert kubectl("get", "--raw", "/readyz") == "ok"
    assert "Server Version: v1.36" in kubectl("version")
    assert "is running at" in kubectl("cluster-info")


def test_auth_can_i(kubectl: Kubectl) -> None:
    assert kubectl("auth", "can-i", "create", "pods").strip() == "yes"
    nobody = "--as=system:serviceaccount:default:nobody"
    assert "no" in kubectl.cluster.kubectl("auth", "can-i", "create", "pods", nobody, check=False)
    assert "forbidden" in kubectl.fails("get", "pods", "--as=nobody")
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods")
    kubectl("create", "rolebinding", "reader", "--role=reader", "--user=nobody")
    assert "No resources found" in kubectl.cluster.kubectl(
        "-n", kubectl.namespace, "get", "pods", "--as=nobody", both=True
    )


def test_verbose_output_shows_requests(kubectl: Kubectl) -> None:
    said = kubectl.cluster.kubectl("-n", kubectl.namespace, "get", "pods", "-v=8", both=True)
    assert "200 OK" in said or 'status="200 OK"' in said


def test_proxy(kubectl: Kubectl, cluster: Cluster) -> None:
    words = ["kubectl", "--kubeconfig", str(cluster.kubeconfig), "proxy", "--port=0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        address = proxy.stdout.readline().strip().rpartition(" ")[2]
        with urllib.request.urlopen(f"http://{address}/api/v1/namespaces/{kubectl.namespace}") as answer:
            assert json.load(answer)["metadata"]["name"] == kubectl.namespace
        proxy.terminate()


def test_delete_policies(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=nginx", "--replicas=2")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl("delete", "deployment", "web", "--cascade=orphan")
    assert len(kubectl.json("get", "replicasets")["items"]) == 1
    kubectl("delete", "replicaset", "--all", "--cascade=foreground")
    assert kubectl.json("get", "pods")["items"] == []


def test_bad_manifests_are_refused_clearly(kubectl: Kubectl) -> None:
    unknown = textwrap.dedent("""
        apiVersion: v1
        kind: Pod
        metadata: {name: a}
        spec: {containers: [{name: c, image: i, imagee: x}]}
    """)
    assert 'unknown field "spec.containers[0].imagee"' in kubectl.fails("create", "-f", "-", input=unknown)
    invalid = unknown.replace(", imagee: x", "").replace("name: a", "name: A_b")
    assert "RFC 1123 subdomain" in kubectl.fails("create", "-f", "-", input=invalid)
