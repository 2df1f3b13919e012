"""What controllers do for the users of a running control plane."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubectl_runner import Kubectl

from fastkube.testing import Cluster

Object = dict[str, Any]


def eventually(look: Callable[[], Any], wanted: Any = True, timeout_s: float = 60.0) -> None:
    """Waits until `look` gives what is wanted."""
    until = time.monotonic() + timeout_s
    while (found := look()) != wanted:
        assert time.monotonic() < until, f"{found!r} instead of {wanted!r}"
        time.sleep(0.1)


def path(kubectl: Kubectl, thing: str, expression: str) -> Callable[[], str]:
    return lambda: kubectl("get", *thing.split(), "-o", f"jsonpath={expression}", "--ignore-not-found")


def apply(kubectl: Kubectl, *objects: Object) -> None:
    kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


# ---------------------------------------------------------------- budgets and quotas


def test_an_eviction_respects_a_budget_until_there_are_pods_enough(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=nginx", "--replicas=2")
    kubectl("create", "pdb", "web", "--selector=app=web", "--min-available=2")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    eventually(path(kubectl, "pdb web", "{.status.currentHealthy}/{.status.disruptionsAllowed}"), "2/0")
    kubectl("scale", "deployment/web", "--replicas=3")
    eventually(path(kubectl, "pdb web", "{.status.currentHealthy}/{.status.disruptionsAllowed}"), "3/1")


def test_a_quota_follows_what_is_there(kubectl: Kubectl) -> None:
    kubectl("create", "quota", "limits", "--hard=pods=3,count/deployments.apps=2,requests.cpu=1")
    kubectl("create", "deployment", "web", "--image=nginx", "--replicas=2")
    kubectl("set", "resources", "deployment/web", "--requests=cpu=100m")
    eventually(
        path(kubectl, "quota limits", "{.status.used}"),
        '{"count/deployments.apps":"1","pods":"2","requests.cpu":"200m"}',
    )
    kubectl("delete", "deployment", "web")
    eventually(
        path(kubectl, "quota limits", "{.status.used}"), '{"count/deployments.apps":"0","pods":"0","requests.cpu":"0"}'
    )


# ---------------------------------------------------------------- certificates and tokens


def request_for(common: str, *organizations: str) -> str:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    parts += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization) for organization in organizations]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(parts))
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


def signing_request(name: str, signer: str, usages: list[str], request: str) -> Object:
    spec = {"signerName": f"kubernetes.io/{signer}", "usages": usages, "request": request, "expirationSeconds": 3600}
    metadata = {"name": name}
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": metadata,
        "spec": spec,
    }


def test_an_approved_request_is_signed_by_the_cluster(kubectl: Kubectl) -> None:
    name = f"user-{kubectl.namespace}"
    apply(kubectl, signing_request(name, "kube-apiserver-client", ["client auth"], request_for("jane", "devs")))
    kubectl("certificate", "approve", name)
    eventually(lambda: bool(path(kubectl, f"csr {name}", "{.status.certificate}")()))
    certificate = x509.load_pem_x509_certificate(
        base64.b64decode(path(kubectl, f"csr {name}", "{.status.certificate}")())
    )
    with open(kubectl.cluster.ca_file, "rb") as file:
        authority = x509.load_pem_x509_certificate(file.read())
    certificate.verify_directly_issued_by(authority)
    with pytest.raises(x509.ExtensionNotFound):  # OpenSSL refuses a certificate whose key usage is empty
        certificate.extensions.get_extension_for_class(x509.KeyUsage)


def test_a_kubelets_request_is_approved_by_itself(kubectl: Kubectl) -> None:
    name = f"node-{kubectl.namespace}"
    role = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"
    kubectl("create", "clusterrolebinding", name, f"--clusterrole={role}", "--group=system:nodes")
    usages = ["digital signature", "client auth"]
    request = request_for("system:node:node-0", "system:nodes")
    asked = signing_request(name, "kube-apiserver-client-kubelet", usages, request)
    node = ("--as=system:node:node-0", "--as-group=system:nodes", "--as-group=system:authenticated")
    kubectl("create", "-f", "-", *node, input=json.dumps(asked))
    eventually(path(kubectl, f"csr {name}", "{.status.conditions[*].reason}"), "AutoApproved")
    eventually(lambda: bool(path(kubectl, f"csr {name}", "{.status.certificate}")()))


def test_a_token_secret_lets_its_account_in_until_it_is_deleted(kubectl: Kubectl) -> None:
    kubectl("create", "serviceaccount", "robot")
    apply(
        kubectl,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "robot-token", "annotations": {"kubernetes.io/service-account.name": "robot"}},
            "type": "kubernetes.io/service-account-token",
        },
    )
    eventually(lambda: bool(path(kubectl, "secret robot-token", "{.data.token}")()))
    token = base64.b64decode(path(kubectl, "secret robot-token", "{.data.token}")()).decode()
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    answer = kubectl("create", "-f", "-", "-o", "jsonpath={.status.user.username}", input=json.dumps(review))
    assert answer == f"system:serviceaccount:{kubectl.namespace}:robot"
    kubectl("delete", "serviceaccount", "robot")
    eventually(path(kubectl, "secret robot-token", "{.metadata.name}"), "")


# ---------------------------------------------------------------- Services


def test_the_ca_is_published_to_every_namespace(kubectl: Kubectl) -> None:
    authority = Path(kubectl.cluster.ca_file).read_text()
    eventually(path(kubectl, "configmap kube-root-ca.crt", r"{.data.ca\.crt}"), authority)


def test_hand_made_endpoints_are_mirrored(kubectl: Kubectl) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "legacy"}, "spec": {"ports": [{"port": 80}]}}
    subsets = [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 8080}]}]
    apply(
        kubectl, service, {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "legacy"}, "subsets": subsets}
    )
    slices = "endpointslices -l kubernetes.io/service-name=legacy"
    eventually(path(kubectl, slices, "{.items[*].endpoints[*].addresses}"), '["192.0.2.7"]')
    kubectl("delete", "service", "legacy")
    eventually(path(kubectl, slices, "{.items[*].metadata.name}"), "")


def test_a_service_cidr_lives_as_long_as_its_addresses(cluster: Cluster, kubectl: Kubectl) -> None:
    name = f"extra-{kubectl.namespace}"
    spec = {"cidrs": ["10.77.0.0/24"]}
    apply(
        kubectl, {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name}, "spec": spec}
    )
    eventually(path(kubectl, f"servicecidr {name}", "{.status.conditions[*].status}"), "True")
    kubectl("create", "service", "clusterip", "pinned", "--tcp=80", "--clusterip=10.77.0.9")
    kubectl("delete", "servicecidr", name, "--wait=false")
    eventually(path(kubectl, f"servicecidr {name}", "{.status.conditions[*].reason}"), "Terminating")


# ---------------------------------------------------------------- nodes


def test_nodes_tell_how_long_to_keep_what_was_read(kubectl: Kubectl) -> None:
    eventually(path(kubectl, "node node-0", r"{.metadata.annotations.node\.alpha\.kubernetes\.io/ttl}"), "0")


# ---------------------------------------------------------------- storage


def storage_claim(name: str, **spec: Any) -> Object:
    whole = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": whole}


def test_a_claim_of_the_default_class_binds_grows_and_goes(kubectl: Kubectl) -> None:
    apply(kubectl, storage_claim("data"))
    eventually(path(kubectl, "pvc data", "{.status.phase} {.status.capacity.storage}"), "Bound 1Gi")
    volume = path(kubectl, "pvc data", "{.spec.volumeName}")()
    kubectl("patch", "pvc", "data", "-p", '{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}')
    eventually(path(kubectl, "pvc data", "{.status.capacity.storage}"), "2Gi")
    kubectl("delete", "pvc", "data")
    eventually(path(kubectl, f"pv {volume}", "{.metadata.name}"), "")


def test_a_claim_in_use_outlives_its_deletion_until_the_pod_is_gone(kubectl: Kubectl) -> None:
    apply(kubectl, storage_claim("data"))
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    spec = {"containers": [{"name": "c", "image": "nginx"}], "volumes": volumes}
    apply(kubectl, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "user"}, "spec": spec})
    eventually(path(kubectl, "pod user", "{.status.phase}"), "Running")
    kubectl("delete", "pvc", "data", "--wait=false")
    assert "Terminating" in kubectl("get", "pvc", "data")
    kubectl("delete", "pod", "user", "--force", "--grace-period=0")
    eventually(path(kubectl, "pvc data", "{.metadata.name}"), "")


def test_an_ephemeral_volume_lives_as_long_as_its_pod(kubectl: Kubectl) -> None:
    template = {"spec": storage_claim("")["spec"]}
    volumes = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]
    spec = {"containers": [{"name": "c", "image": "nginx"}], "volumes": volumes}
    apply(kubectl, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
    eventually(path(kubectl, "pod p", "{.status.phase}"), "Running")
    assert path(kubectl, "pvc p-scratch", "{.status.phase}")() == "Bound"
    kubectl("delete", "pod", "p")
    eventually(path(kubectl, "pvc p-scratch", "{.metadata.name}"), "")


# ---------------------------------------------------------------- devices


def test_a_claim_is_made_for_a_pod_and_goes_with_it(kubectl: Kubectl) -> None:
    requests = [{"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]
    template = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "gpu"},
        "spec": {"spec": {"devices": {"requests": requests}}},
    }
    container = {"name": "c", "image": "nginx", "resources": {"claims": [{"name": "gpu"}]}}
    spec = {"containers": [container], "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "gpu"}]}
    apply(kubectl, template, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
    statuses = path(kubectl, "pod p", "{.status.resourceClaimStatuses[*].resourceClaimName}")
    eventually(lambda: bool(statuses()))
    assert statuses().startswith("p-gpu-")
    kubectl("delete", "pod", "p")
    eventually(path(kubectl, "resourceclaims", "{.items[*].metadata.name}"), "")


# ---------------------------------------------------------------- workloads


def images(kubectl: Kubectl) -> str:
    """Of the Pods that are not going, each once."""
    pods = kubectl.json("get", "pods", "-l", "app=web")["items"]
    running = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    return " ".join(sorted({container["image"] for pod in running for container in pod["spec"]["containers"]}))


@pytest.fixture
def web(kubectl: Kubectl) -> Kubectl:
    """A Deployment of three Pods, rolled out."""
    kubectl("create", "deployment", "web", "--image=nginx:1", "--replicas=3")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    return kubectl


def test_a_new_image_is_rolled_out_and_undone(web: Kubectl) -> None:
    web("set", "image", "deployment/web", "nginx=nginx:2")
    web("rollout", "status", "deployment/web", "--timeout=60s")
    eventually(lambda: images(web), "nginx:2")
    assert web("rollout", "history", "deployment/web").split()[-4:] == ["1", "<none>", "2", "<none>"]
    web("rollout", "undo", "deployment/web")
    web("rollout", "status", "deployment/web", "--timeout=60s")
    eventually(lambda: images(web), "nginx:1")
    assert path(web, "deployment web", r"{.metadata.annotations.deployment\.kubernetes\.io/revision}")() == "3"


def test_a_paused_rollout_goes_on_when_resumed(web: Kubectl) -> None:
    web("rollout", "pause", "deployment/web")
    web("set", "image", "deployment/web", "nginx=nginx:2")
    eventually(path(web, "deployment web", "{.status.observedGeneration}"), "3")
    assert images(web) == "nginx:1"
    web("rollout", "resume", "deployment/web")
    web("rollout", "status", "deployment/web", "--timeout=60s")
    eventually(lambda: images(web), "nginx:2")


def test_a_restart_replaces_every_pod(web: Kubectl) -> None:
    before = set(web("get", "pods", "-o", "name").split())
    web("rollout", "restart", "deployment/web")
    web("rollout", "status", "deployment/web", "--timeout=60s")
    eventually(lambda: before & set(web("get", "pods", "-o", "name").split()), set())


def test_a_deployment_that_makes_no_progress_says_so(kubectl: Kubectl) -> None:
    spec = {
        "replicas": 1,
        "progressDeadlineSeconds": 1,
        "selector": {"matchLabels": {"app": "stuck"}},
        "template": {
            "metadata": {"labels": {"app": "stuck"}},
            "spec": {"containers": [{"name": "c", "image": "i"}], "nodeSelector": {"no": "such"}},
        },
    }
    apply(kubectl, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "stuck"}, "spec": spec})
    reason = '{.status.conditions[?(@.type=="Progressing")].reason}'
    eventually(path(kubectl, "deployment stuck", reason), "ProgressDeadlineExceeded")
    assert "exceeded its progress deadline" in kubectl.fails("rollout", "status", "deployment/stuck", "--timeout=60s")


def test_statefulsets_and_daemonsets_roll_back_too(kubectl: Kubectl) -> None:
    for kind in ("StatefulSet", "DaemonSet"):
        name = kind.lower()
        template = {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "nginx:1"}]},
        }
        spec: Object = {"selector": {"matchLabels": {"app": name}}, "template": template}
        if kind == "StatefulSet":
            spec |= {"serviceName": name, "replicas": 2}
        apply(kubectl, {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
        kubectl("rollout", "status", f"{name}/{name}", "--timeout=60s")
        kubectl("set", "image", f"{name}/{name}", "c=nginx:2")
        kubectl("rollout", "status", f"{name}/{name}", "--timeout=60s")
        kubectl("rollout", "undo", f"{name}/{name}")
        kubectl("rollout", "status", f"{name}/{name}", "--timeout=60s")
        eventually(path(kubectl, f"pods -l app={name}", "{.items[0].spec.containers[0].image}"), "nginx:1")


def test_an_autoscaler_keeps_to_its_limits(web: Kubectl) -> None:
    web("autoscale", "deployment", "web", "--min=4", "--max=6", "--cpu-percent=50")
    eventually(path(web, "deployment web", "{.status.readyReplicas}"), "4")
    assert "New size: 4; reason: Current number of replicas below Spec.MinReplicas" in web("describe", "hpa", "web")


def test_a_job_is_made_from_a_cron_job(kubectl: Kubectl) -> None:
    kubectl("create", "cronjob", "nightly", "--image=busybox", "--schedule=0 3 * * *")
    kubectl("create", "job", "now", "--from=cronjob/nightly")
    kubectl("wait", "job/now", "--for=condition=Complete", "--timeout=60s")
    assert path(kubectl, "job now", "{.metadata.ownerReferences[*].name}")() == "nightly"


# ---------------------------------------------------------------- deletion


@pytest.mark.parametrize(
    ("cascade", "left"), [("background", ("", "")), ("foreground", ("", "")), ("orphan", ("1", "3"))]
)
def test_deletion_cascades_as_asked(web: Kubectl, cascade: str, left: tuple[str, str]) -> None:
    web("delete", "deployment", "web", f"--cascade={cascade}", "--timeout=60s")
    sets = path(web, "replicasets", "{.items[*].metadata.name}")
    pods = path(web, "pods", "{.items[*].metadata.name}")
    eventually(lambda: (len(sets().split()), len(pods().split())), tuple(int(number or 0) for number in left))
    if cascade == "orphan":
        assert path(web, "replicasets", "{.items[*].metadata.ownerReferences}")() == ""


def test_a_namespace_takes_everything_with_it(cluster: Cluster, web: Kubectl) -> None:
    web("create", "configmap", "settings", "--from-literal=a=b")
    cluster.kubectl("create", "namespace", f"{web.namespace}-2")
    cluster.kubectl("-n", f"{web.namespace}-2", "create", "deployment", "web", "--image=nginx")
    cluster.kubectl("delete", "namespace", f"{web.namespace}-2", "--timeout=60s")
    assert path(web, "deployment web", "{.metadata.name}")() == "web"


# ---------------------------------------------------------------- nodes in maintenance


@pytest.fixture
def node(cluster: Cluster) -> Iterator[str]:
    """A node which a test may put out of order."""
    yield "node-2"
    cluster.kubectl("uncordon", "node-2")


def placed(kubectl: Kubectl, node: str, replicas: int) -> None:
    """A Deployment whose Pods prefer the node, but may go elsewhere."""
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
    preferred = [{"weight": 100, "preference": term}]
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    template = {
        "metadata": {"labels": {"app": "moving"}},
        "spec": {"containers": [{"name": "c", "image": "nginx"}], "affinity": affinity},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "moving"}}, "template": template}
    apply(kubectl, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "moving"}, "spec": spec})
    kubectl("rollout", "status", "deployment/moving", "--timeout=60s")


def test_a_drain_waits_for_the_budget(kubectl: Kubectl, node: str) -> None:
    placed(kubectl, node, 2)
    kubectl("create", "pdb", "moving", "--selector=app=moving", "--min-available=1")
    eventually(path(kubectl, "pdb moving", "{.status.disruptionsAllowed}"), "1")
    kubectl("drain", node, "--ignore-daemonsets", "--pod-selector=app=moving", "--timeout=60s")
    where = kubectl("get", "pods", "-l", "app=moving", "-o", "jsonpath={.items[*].spec.nodeName}").split()
    assert node not in where
    assert path(kubectl, f"node {node}", "{.spec.unschedulable} {.spec.taints[*].key}")() == (
        "true node.kubernetes.io/unschedulable"
    )
    kubectl("uncordon", node)
    eventually(path(kubectl, f"node {node}", "{.spec.taints}"), "")


def test_a_taint_drives_pods_away_that_do_not_tolerate_it(kubectl: Kubectl, node: str) -> None:
    placed(kubectl, node, 2)
    kubectl("taint", "node", node, "broken=yes:NoExecute")
    nodes = path(kubectl, "pods -l app=moving", "{.items[*].spec.nodeName}")
    eventually(lambda: node in nodes().split() or len(nodes().split()) != 2, False)
    kubectl("taint", "node", node, "broken-")


# ---------------------------------------------------------------- a flood


async def owned_by_one(cluster: Cluster, namespace: str, dependents: int) -> None:
    """Of many dependents none is left when their owner has gone, and nothing else is gone with them."""
    async with cluster.client(batch=True) as client:
        gate = asyncio.Semaphore(64)

        async def create(name: str, owner: Object | None) -> None:
            metadata: Object = {"name": name, "namespace": namespace, "labels": {"flood": "yes"}}
            if owner is not None:
                uid = owner["metadata"]["uid"]
                metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]
            async with gate:
                await client.create("v1/configmaps", {"metadata": metadata}, namespace)

        owner = await client.create("v1/configmaps", {"metadata": {"name": "owner"}}, namespace)
        await asyncio.gather(*(create(f"owned-{number}", owner) for number in range(dependents)))
        await asyncio.gather(*(create(f"free-{number}", None) for number in range(50)))
        await client.delete("v1/configmaps", "owner", namespace)
        async with asyncio.timeout(120):
            while True:
                found = (await client.list("v1/configmaps", namespace, label_selector="flood=yes"))["items"]
                if len(found) <= 50:
                    break
                await asyncio.sleep(0.2)
        assert {item["metadata"]["name"] for item in found} == {f"free-{number}" for number in range(50)}


async def test_dependents_go_with_their_owner_and_nothing_else(cluster: Cluster, namespace: str) -> None:
    await owned_by_one(cluster, namespace, 300)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_ten_thousand_dependents_go_with_their_owner(cluster: Cluster, namespace: str) -> None:
    await owned_by_one(cluster, namespace, 10_000)
