"""Every verb of kubectl that a user may try, once: what it prints, against a running control plane."""

from __future__ import annotations

import json
from pathlib import Path

from kubectl_runner import Kubectl

CREATES = {
    "service clusterip s --tcp=80:8080": "service/s created",
    "service nodeport np --tcp=80": "service/np created",
    "service loadbalancer lb --tcp=80": "service/lb created",
    "service externalname en --external-name=e.com": "service/en created",
    "configmap c --from-literal=a=b": "configmap/c created",
    "secret generic g --from-literal=a=b": "secret/g created",
    "secret docker-registry r --docker-username=u --docker-password=p --docker-server=s": "secret/r created",
    "serviceaccount a": "serviceaccount/a created",
    "token a --duration=10m": "eyJ",
    "role r --verb=get --resource=pods": "role.rbac.authorization.k8s.io/r created",
    "rolebinding rb --role=r --user=bob": "rolebinding.rbac.authorization.k8s.io/rb created",
    "cronjob cj --image=busybox --schedule=*/5_*_*_*_*": "cronjob.batch/cj created",
    "job j --from=cronjob/cj": "job.batch/j created",
    "ingress i --rule=e.com/x=s:80": "ingress.networking.k8s.io/i created",
    "poddisruptionbudget p --selector=app=d --min-available=1": "poddisruptionbudget.policy/p created",
    "quota q --hard=pods=50": "resourcequota/q created",
    "deployment d --image=nginx --replicas=2 --port=80": "deployment.apps/d created",
}


def test_create_of_every_kind(kubectl: Kubectl) -> None:
    for words, told in CREATES.items():
        assert told in kubectl("create", *(word.replace("_", " ") for word in words.split())), words


SETS = {
    "image deployment/d nginx=nginx:1.27": "image updated",
    "env deployment/d A=b": "env updated",
    "env deployment/d --list": "A=b",
    "resources deployment d --limits=cpu=200m,memory=64Mi": "resource requirements updated",
    "serviceaccount deployment d default": "serviceaccount updated",
    "selector service d app=d": "selector updated",
}


def test_set_autoscale_expose_and_scale(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "d", "--image=nginx", "--replicas=2", "--port=80")
    assert "service/d exposed" in kubectl("expose", "deployment", "d", "--port=80")
    for words, told in SETS.items():
        assert told in kubectl("set", *words.split()), words
    kubectl("create", "rolebinding", "rb", "--clusterrole=view", "--user=a")
    assert "subjects updated" in kubectl("set", "subject", "rolebinding", "rb", "--user=bob")
    assert "autoscaled" in kubectl("autoscale", "deployment", "d", "--min=1", "--max=3", "--cpu-percent=50")
    assert "scaled" in kubectl("scale", "deployment", "d", "--current-replicas=2", "--replicas=3")
    scale = '{"spec":{"replicas":1}}'
    assert "patched" in kubectl("patch", "deployment", "d", "--subresource=scale", "--type=merge", "-p", scale)
    shown = kubectl("get", "deployment", "d", "--subresource=scale")
    assert shown.split()[:3] == ["NAME", "DESIRED", "AVAILABLE"] and shown.split()[5] == "1"
    assert "Min replicas" in kubectl("describe", "hpa", "d")


def test_wait_debug_events_and_top(kubectl: Kubectl) -> None:
    kubectl("run", "p", "--image=nginx", "--restart=Never", "--labels=a=b")
    assert "condition met" in kubectl("wait", "pod/p", "--for=create", "--timeout=60s")
    assert "condition met" in kubectl("wait", "pod/p", "--for=condition=Ready", "--timeout=60s")
    assert "condition met" in kubectl("wait", "pod/p", "--for=jsonpath={.status.phase}=Running", "--timeout=60s")
    kubectl("debug", "p", "--image=busybox", "-c", "dbg", "-q")
    kubectl("debug", "p", "--image=busybox", "--copy-to=copy", "--share-processes", "-q")
    kubectl("debug", "node/node-0", "--image=busybox", "-q")
    pod = kubectl.json("get", "pod", "p")
    assert [each["name"] for each in pod["spec"]["ephemeralContainers"]] == ["dbg"]
    assert kubectl.json("get", "pod", "copy")["spec"]["shareProcessNamespace"] is True
    assert "Scheduled" in kubectl("events", "--for", "pod/p", "--types=Normal")
    assert kubectl("top", "nodes").split()[0] == "NAME" and "p" in kubectl("top", "pod", "p", "--containers")
    assert "deleted" in kubectl("delete", "pods", "--all", "--now")


def test_kustomize_replace_and_last_applied(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: b}\n")
    generated = "configMapGenerator: [{name: gen, literals: [a=b]}]\n"
    (tmp_path / "kustomization.yaml").write_text(f"resources: [map.yaml]\nnamePrefix: k-\n{generated}")
    assert "name: k-m" in kubectl("kustomize", str(tmp_path))
    assert "configmap/k-m created" in kubectl("apply", "-k", str(tmp_path))
    assert kubectl("diff", "-k", str(tmp_path)) == ""
    assert "a: b" in kubectl("apply", "view-last-applied", "configmap", "k-m")
    plain = str(tmp_path / "map.yaml")
    kubectl("create", "-f", plain)
    assert "configured" in kubectl("apply", "set-last-applied", "--create-annotation", "-f", plain)
    before = kubectl.json("get", "configmap", "m")["metadata"]["uid"]
    assert "replaced" in kubectl("replace", "--force", "-f", plain)
    assert kubectl.json("get", "configmap", "m")["metadata"]["uid"] != before


REQUEST = """
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: NAME}
spec: {signerName: e.com/signer, usages: [client auth], request: CSR}
"""


def test_certificates_and_access(kubectl: Kubectl) -> None:
    from base64 import b64encode

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    encoded = b64encode(csr.public_bytes(serialization.Encoding.PEM)).decode()
    for verb, told in (("approve", "Approved"), ("deny", "Denied")):
        name = f"{kubectl.namespace}-{verb}"
        kubectl("create", "-f", "-", input=REQUEST.replace("NAME", name).replace("CSR", encoded))
        kubectl("certificate", verb, name)
        conditions = kubectl.json("get", "csr", name)["status"]["conditions"]
        assert [each["type"] for each in conditions] == [told]
        kubectl("delete", "csr", name)
    assert "system:masters" in kubectl("auth", "whoami")
    assert "selfsubjectreviews.authentication.k8s.io" in kubectl("auth", "can-i", "--list")
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    metadata = {"name": "r", "namespace": kubectl.namespace}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules}
    assert "reconciled" in kubectl("auth", "reconcile", "-f", "-", input=json.dumps(role))


def test_the_whole_cluster_is_dumped(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=b")
    kubectl("cluster-info", "dump", f"--output-directory={tmp_path}", "--namespaces", kubectl.namespace)
    assert len(json.loads((tmp_path / "nodes.json").read_text())["items"]) == 3
    assert (tmp_path / kubectl.namespace / "pods.json").exists()
