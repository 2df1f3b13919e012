"""Access and server-side apply as kubectl and a joining kubelet use them."""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubectl_runner import Kubectl

from fastkube.testing import Cluster

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "nginx:1", env: [{name: A, value: b}]}]}
"""

WIDGETS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        description: A widget of ours.
        properties:
          spec:
            type: object
            properties:
              size: {type: string, description: How large it is.}
              tags: {type: array, x-kubernetes-list-type: set, items: {type: string}}
"""


# ---------------------------------------------------------------- server-side apply


def managers(obj: dict[str, Any]) -> list[tuple[str, str]]:
    return [(entry["manager"], entry["operation"]) for entry in obj["metadata"]["managedFields"]]


def test_server_side_apply_conflicts_force_and_diff(kubectl: Kubectl) -> None:
    kubectl("apply", "--server-side", "-f", "-", input=DEPLOYMENT)
    changed = DEPLOYMENT.replace("nginx:1", "nginx:2")
    told = kubectl.fails("apply", "--server-side", "--field-manager=ci", "-f", "-", input=changed)
    assert 'conflict with "kubectl": .spec.template.spec.containers[name="c"].image' in told
    assert kubectl.fails("diff", "--server-side", "-f", "-", input=changed) == ""  # it tells by its exit status
    kubectl("apply", "--server-side", "--field-manager=ci", "--force-conflicts", "-f", "-", input=changed)
    obj = kubectl.json("get", "deployment", "web", "--show-managed-fields")
    assert obj["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:2"
    assert {("kubectl", "Apply"), ("ci", "Apply")} <= set(managers(obj))
    kubectl("scale", "deployment/web", "--replicas=4")
    told = kubectl.fails("apply", "--server-side", "-f", "-", input=changed)
    assert 'conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas' in told


def test_client_side_apply_is_taken_over(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", input=DEPLOYMENT)
    assert '"image":"nginx:1"' in kubectl("apply", "view-last-applied", "deployment/web", "-o", "json").replace(" ", "")
    kubectl("apply", "--server-side", "-f", "-", input=DEPLOYMENT.replace("replicas: 2", "replicas: 3"))
    without = DEPLOYMENT.replace(", env: [{name: A, value: b}]", "")
    kubectl("apply", "--server-side", "-f", "-", input=without)
    obj = kubectl.json("get", "deployment", "web", "--show-managed-fields")
    assert obj["spec"]["replicas"] == 2 and "env" not in obj["spec"]["template"]["spec"]["containers"][0]
    last = json.loads(obj["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"])
    assert last["spec"]["replicas"] == 2


def test_custom_kinds_are_applied_and_explained(kubectl: Kubectl) -> None:
    kubectl("apply", "--server-side", "-f", "-", input=WIDGETS)
    kubectl("wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=60s")
    widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: a}\nspec: {size: big, tags: [p, q]}\n"
    kubectl("apply", "--server-side", "-f", "-", input=widget)
    kubectl("apply", "--server-side", "--field-manager=ci", "-f", "-", input=widget.replace("[p, q]", "[q, r]"))
    obj = kubectl.json("get", "widget", "a", "--show-managed-fields")
    assert obj["spec"]["tags"] == ["p", "q", "r"] and len(managers(obj)) == 2
    assert "How large it is." in kubectl("explain", "widget.spec.size")
    assert "size" in kubectl("explain", "widget", "--recursive")


# ---------------------------------------------------------------- who may do what


def test_who_am_i_and_what_may_i_do(kubectl: Kubectl) -> None:
    assert "system:masters" in kubectl("auth", "whoami")
    assert "*.*" in kubectl("auth", "can-i", "--list")
    kubectl("create", "serviceaccount", "robot")
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods")
    kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={kubectl.namespace}:robot")
    account = f"system:serviceaccount:{kubectl.namespace}:robot"
    listed = kubectl("auth", "can-i", "--list", f"--as={account}")
    assert any(line.split()[:1] == ["pods"] and "[get list]" in line for line in listed.splitlines())
    assert kubectl("auth", "can-i", "list", "pods", f"--as={account}").strip() == "yes"
    kubectl.fails("auth", "can-i", "delete", "pods", f"--as={account}")
    token = kubectl("create", "token", "robot", "--duration=15m").strip()
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["sub"] == account and claims["exp"] - claims["iat"] == 900


# ---------------------------------------------------------------- a kubelet joins


@pytest.fixture(scope="module")
def joinable() -> Iterator[Cluster]:
    with Cluster(nodes=0, scheduler=False, enable_bootstrap_token_auth=True) as started:
        yield started


SECRET = """
apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-abcdef, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData:
  token-id: abcdef
  token-secret: 0123456789abcdef
  usage-bootstrap-authentication: "true"
  auth-extra-groups: system:bootstrappers:kubeadm:default-node-token
"""


class Kubelet:
    """Speaks to the API server as a joining node does, first with its token and then with its certificate."""

    def __init__(self, cluster: Cluster, folder: Path, name: str) -> None:
        self.cluster, self.folder, self.name = cluster, folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = ""

    def ask(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        context = ssl.create_default_context(cafile=self.cluster.ca_file)
        if self.certificate:
            context.load_cert_chain(self.certificate)
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.cluster.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return json.loads(answer.read())

    def request(self) -> dict[str, Any]:
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{self.name}"),
            ]
        )
        signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.key, hashes.SHA256())
        pem = signed.public_bytes(serialization.Encoding.PEM)
        spec = {"request": base64.b64encode(pem).decode(), "signerName": "kubernetes.io/kube-apiserver-client-kubelet"}
        return {"metadata": {"name": self.name}, "spec": {**spec, "usages": ["digital signature", "client auth"]}}

    def take(self, certificate: str) -> None:
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path = self.folder / "kubelet.pem"
        path.write_bytes(base64.b64decode(certificate) + self.key.private_bytes(*form))
        self.certificate = str(path)


def test_a_kubelet_joins_by_bootstrap_token(joinable: Cluster, tmp_path: Path) -> None:
    joinable.kubectl("apply", "-f", "-", input=SECRET)
    for name, role in (
        ("kubelet-bootstrap", "system:node-bootstrapper"),
        ("approve", "system:certificates.k8s.io:certificatesigningrequests:nodeclient"),
    ):
        joinable.kubectl("create", "clusterrolebinding", name, f"--clusterrole={role}", "--group=system:bootstrappers")
    kubelet, path = Kubelet(joinable, tmp_path, "n1"), "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    token = "abcdef.0123456789abcdef"
    made = kubelet.ask("POST", path, kubelet.request(), token)
    assert made["spec"]["username"] == "system:bootstrap:abcdef"
    assert "system:bootstrappers:kubeadm:default-node-token" in made["spec"]["groups"]
    kubelet.take(certificate_of(kubelet, f"{path}/n1", token))
    node = {"metadata": {"name": "n1"}, "status": {"capacity": {"cpu": "1"}}}
    assert kubelet.ask("POST", "/api/v1/nodes", node)["metadata"]["name"] == "n1"
    assert "n1" in joinable.kubectl("get", "nodes", "-o", "name")
    with pytest.raises(urllib.error.HTTPError) as refused:
        kubelet.ask("GET", "/api/v1/secrets")
    assert refused.value.code == 403


def test_a_certificate_is_approved_by_hand(joinable: Cluster, tmp_path: Path) -> None:
    kubelet = Kubelet(joinable, tmp_path, "jane")
    body = kubelet.request()
    plain = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    signed = x509.CertificateSigningRequestBuilder().subject_name(plain).sign(kubelet.key, hashes.SHA256())
    body["spec"]["request"] = base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()
    body["spec"]["signerName"] = "kubernetes.io/kube-apiserver-client"
    whole = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", **body}
    joinable.kubectl("create", "-f", "-", input=json.dumps(whole))
    joinable.kubectl("certificate", "approve", "jane")
    deadline = time.monotonic() + 20
    certificate = ""
    while not certificate and time.monotonic() < deadline:
        certificate = joinable.kubectl("get", "csr", "jane", "-o", "jsonpath={.status.certificate}")
    kubelet.take(certificate)
    review = kubelet.ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    assert review["status"]["userInfo"]["username"] == "jane"
    assert review["status"]["userInfo"]["groups"] == ["system:authenticated"]


def certificate_of(kubelet: Kubelet, path: str, token: str) -> str:
    """What the signer made of the request, as soon as it is there."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = kubelet.ask("GET", path, token=token).get("status", {}).get("certificate")
        if found:
            return str(found)
        time.sleep(0.1)
    raise AssertionError("the request was not signed")
