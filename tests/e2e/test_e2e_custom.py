"""Custom kinds as their users know them: kubectl with a definition as large as those in the wild, and an operator."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubectl_runner import Kubectl

from fastkube.api import schema
from fastkube.api.schema import Schema
from fastkube.testing import Cluster

GROUP = "rollouts.example.com"
TOLD = "Told at some length, so that the definition has the size of those in the wild."
EITHER: dict[str, Any] = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
OPEN: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}

ROLLOUT = f"""
apiVersion: {GROUP}/v1
kind: Rollout
metadata: {{name: web}}
spec:
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - name: web
        image: nginx:1
        resources: {{limits: {{cpu: 500m}}}}
        livenessProbe: {{httpGet: {{port: http}}}}
"""


def openapi_of(node: Schema, depth: int = 0) -> dict[str, Any]:
    """The schema of a built-in type as controller-gen would write it."""
    if node.int_or_string or node.is_quantity:
        return {**EITHER, "description": TOLD}
    if node.type == "object" and depth < 10:
        fields = {key: openapi_of(each, depth + 1) for key, each in node.fields.items()}
        return {"type": "object", "description": TOLD, "properties": fields}
    if node.type in ("array", "map") and isinstance(node.items, Schema):
        below = openapi_of(node.items, depth + 1)
        return (
            {"type": "array", "items": below}
            if node.type == "array"
            else {"type": "object", "additionalProperties": below}
        )
    return {"type": node.type, "description": TOLD} if node.type in ("string", "boolean", "integer") else dict(OPEN)


def large_definition() -> dict[str, Any]:
    template = openapi_of(schema.struct("core.v1.PodTemplateSpec"))
    spec = {
        "type": "object",
        "properties": {
            "replicas": {"type": "integer", "default": 1, "minimum": 0},
            "strategy": {"type": "string", "enum": ["Canary", "BlueGreen"], "default": "Canary"},
            "template": template,
            "previous": template,
        },
        "x-kubernetes-validations": [
            {"rule": "self.replicas <= 100", "message": "too many"},
            {"rule": "self.strategy == oldSelf.strategy", "message": "strategy is immutable"},
        ],
    }
    names = {"plural": "rollouts", "kind": "Rollout", "shortNames": ["ro"], "categories": ["all"]}
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    column = {"name": "Desired", "type": "integer", "jsonPath": ".spec.replicas"}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}, "scale": scale},
        "additionalPrinterColumns": [column],
        "schema": {
            "openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": {"type": "object", **OPEN}}}
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"rollouts.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


@pytest.fixture(scope="module")
def rollouts(cluster: Cluster) -> Iterator[None]:
    crd = json.dumps(large_definition())
    assert len(crd) > 250_000
    cluster.kubectl("create", "-f", "-", input=crd)
    cluster.kubectl("wait", "--for=condition=Established", f"crd/rollouts.{GROUP}", "--timeout=60s")
    yield
    cluster.kubectl("delete", "crd", f"rollouts.{GROUP}")


def test_kubectl_with_a_large_definition(rollouts: None, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "created" in kubectl("apply", "-f", "-", input=ROLLOUT)
    assert "unchanged" in kubectl("apply", "-f", "-", input=ROLLOUT)
    assert "configured" in kubectl("apply", "-f", "-", input=ROLLOUT.replace("nginx:1", "nginx:2"))
    assert "serverside-applied" in kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=ROLLOUT)
    lines = kubectl("get", "ro").splitlines()
    assert [line.split() for line in lines] == [["NAME", "DESIRED"], ["web", "1"]]
    assert "rollout.rollouts.example.com/web" in kubectl("get", "all")
    assert "Strategy:  Canary" in kubectl("describe", "ro", "web")
    told = kubectl("explain", "rollout.spec.template.spec.containers.livenessProbe.httpGet")
    assert "FIELD: httpGet <Object>" in told
    assert "scaled" in kubectl("scale", "ro", "web", "--replicas=5")
    assert "too many" in kubectl.fails("patch", "ro", "web", "--type=merge", "-p", '{"spec":{"replicas":200}}')
    assert "immutable" in kubectl.fails("patch", "ro", "web", "--type=merge", "-p", '{"spec":{"strategy":"BlueGreen"}}')
    kubectl("patch", "ro", "web", "--subresource=status", "--type=merge", "-p", '{"status":{"replicas":3}}')
    monkeypatch.setenv("EDITOR", "sed -i s/nginx:1/nginx:3/")
    assert "edited" in kubectl("edit", "ro", "web")
    found = kubectl.json("get", "ro", "web")
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:3"
    assert (found["spec"]["replicas"], found["status"]) == (5, {"replicas": 3})
    assert 'unknown field "spec.template.spec.contaners"' in kubectl.fails(
        "apply", "-f", "-", input=ROLLOUT.replace("containers:", "contaners:")
    )
    kubectl("delete", "ro", "web")


OPERATOR = """
import kopf

@kopf.on.startup()
def settings(settings, **_):
    settings.posting.enabled = False

@kopf.on.create("toys.example.com", "v1", "gadgets")
@kopf.on.update("toys.example.com", "v1", "gadgets", field="spec.colour")
def paint(spec, name, namespace, patch, **_):
    patch.status["painted"] = spec["colour"]
    return {"by": "kopf"}

@kopf.on.delete("toys.example.com", "v1", "gadgets")
def scrap(name, **_):
    print("SCRAPPED", name, flush=True)
"""


def test_a_kopf_operator_of_a_custom_kind(cluster: Cluster, namespace: str, kubectl: Kubectl, tmp_path: Path) -> None:
    spec = {"type": "object", "properties": {"colour": {"type": "string"}}}
    whole = {"type": "object", "properties": {"spec": spec, "status": {"type": "object", **OPEN}}}
    crd = large_definition()
    crd["metadata"]["name"] = "gadgets.toys.example.com"
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    crd["spec"] = {
        "group": "toys.example.com",
        "scope": "Namespaced",
        "names": {"plural": "gadgets", "kind": "Gadget"},
        "versions": [{**version, "schema": {"openAPIV3Schema": whole}}],
    }
    cluster.kubectl("create", "-f", "-", input=json.dumps(crd))
    cluster.kubectl("wait", "--for=condition=Established", "crd/gadgets.toys.example.com", "--timeout=60s")
    operator = tmp_path / "operator.py"
    operator.write_text(textwrap.dedent(OPERATOR))
    words = [sys.executable, "-m", "kopf", "run", "--standalone", "-n", namespace, str(operator)]
    with subprocess.Popen(
        words, env=cluster.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            gadget = {"apiVersion": "toys.example.com/v1", "kind": "Gadget", "metadata": {"name": "g"}}
            kubectl("create", "-f", "-", input=json.dumps({**gadget, "spec": {"colour": "red"}}))
            until_painted(kubectl, "red")
            kubectl("patch", "gadget", "g", "--type=merge", "-p", '{"spec":{"colour":"blue"}}')
            until_painted(kubectl, "blue")
            kubectl("delete", "gadget", "g", "--timeout=60s")
        finally:
            process.terminate()
            output = process.communicate(timeout=20)[0]
    assert "SCRAPPED g" in output
    cluster.kubectl("delete", "crd", "gadgets.toys.example.com")


def until_painted(kubectl: Kubectl, colour: str) -> None:
    deadline = time.monotonic() + 30
    while (kubectl.json("get", "gadget", "g").get("status") or {}).get("painted") != colour:
        assert time.monotonic() < deadline, "the operator did not react"
        time.sleep(0.1)
