"""Endpoints and EndpointSlices: who is an endpoint, on which ports, and how few writes a change costs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from kubeobjects import deleting, obj, owned_by, pod, writes

from fastkube.controllers import endpoints, endpointslice, topology_hints
from fastkube.controllers.actions import Create, Delete, Update

Object = dict[str, Any]


def service(*ports: Any, name: str = "web", **spec: Any) -> Object:
    listed = [
        port if isinstance(port, dict) else {"port": port, "targetPort": port, "protocol": "TCP"} for port in ports
    ]
    spec = {"selector": {"app": "web"}, "ports": listed, "ipFamilies": ["IPv4"], "clusterIP": "10.0.0.9", **spec}
    return obj("Service", name, spec=spec, m_labels={"tier": "front"})


def backend(number: int, *, port_name: str = "", port: int = 8080, **more: Any) -> Object:
    made = pod(f"p{number}", **more)
    made["status"]["podIPs"] = [{"ip": f"10.1.0.{number}"}, {"ip": f"fd00::{number}"}]
    made["spec"]["containers"] = [
        {"name": "c", "ports": [{"name": port_name, "containerPort": port, "protocol": "TCP"}]}
    ]
    return made


# ---------------------------------------------------------------- EndpointSlices


def slices(svc: Object, pods: list[Object], present: list[Object] | None = None, limit: int = 100, **more: Any) -> Any:
    view = endpointslice.View(svc, present or [], pods, more.get("zones", {}), limit, more.get("nodes", []))
    return endpointslice.reconcile(view)


def stored(create: Any, number: int = 1) -> Object:
    """What the server would keep of a created slice."""
    made: Object = create.obj
    metadata = {**made["metadata"], "name": f"web-{number}", "uid": f"slice-{number}", "resourceVersion": "1"}
    return {**made, "metadata": metadata}


def test_a_slice_tells_addresses_conditions_and_ports() -> None:
    svc = service(80)
    pods = [backend(1), backend(2, ready=False), deleting(backend(3)), backend(4, phase="Succeeded")]
    (create,) = writes(slices(svc, pods, zones={"n1": "z1"}), Create)
    made = create.obj
    assert made["metadata"]["labels"] == {
        "tier": "front",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert made["metadata"]["ownerReferences"] == owned_by(svc)
    assert made["metadata"]["generateName"] == "web-"
    assert made["addressType"] == "IPv4"
    assert made["ports"] == [{"name": "", "port": 80, "protocol": "TCP"}]
    conditions = {each["addresses"][0]: each["conditions"] for each in made["endpoints"]}
    assert conditions == {
        "10.1.0.1": {"ready": True, "serving": True, "terminating": False},
        "10.1.0.2": {"ready": False, "serving": False, "terminating": False},
        "10.1.0.3": {"ready": False, "serving": True, "terminating": True},
    }
    first = made["endpoints"][0]
    assert (first["nodeName"], first["zone"]) == ("n1", "z1")
    assert first["targetRef"]["name"] == "p1"


def test_not_ready_addresses_are_published_on_request() -> None:
    svc = service(80, publishNotReadyAddresses=True)
    (create,) = writes(slices(svc, [backend(1, ready=False)]), Create)
    assert create.obj["endpoints"][0]["conditions"] == {"ready": True, "serving": False, "terminating": False}


def test_both_families_have_slices_of_their_own() -> None:
    creates = writes(slices(service(80, ipFamilies=["IPv6", "IPv4"]), [backend(1)]), Create)
    assert {create.obj["addressType"]: create.obj["endpoints"][0]["addresses"] for create in creates} == {
        "IPv6": ["fd00::1"],
        "IPv4": ["10.1.0.1"],
    }


def test_named_ports_that_differ_make_different_slices() -> None:
    svc = service({"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"})
    pods = [backend(1, port_name="web", port=8080), backend(2, port_name="web", port=9090), backend(3)]
    creates = writes(slices(svc, pods), Create)
    ports = {(create.obj["ports"] or [{"port": None}])[0]["port"]: len(create.obj["endpoints"]) for create in creates}
    assert ports == {8080: 1, 9090: 1, None: 1}


def test_a_service_without_pods_has_an_empty_slice() -> None:
    (create,) = writes(slices(service(80), []), Create)
    assert (create.obj["endpoints"], create.obj["ports"]) == ([], [])
    assert slices(service(80), [], [stored(create)]) == ()


def test_nothing_changes_when_nothing_has_changed() -> None:
    svc, pods = service(80), [backend(1), backend(2)]
    (create,) = writes(slices(svc, pods), Create)
    assert slices(svc, pods, [stored(create)]) == ()


def test_new_endpoints_fill_what_is_written_anyway_then_what_has_room() -> None:
    svc = service(80)
    pods = [backend(number) for number in range(1, 8)]
    first, second = (stored(create, n) for n, create in enumerate(writes(slices(svc, pods[:5], limit=3), Create)))
    assert [len(first["endpoints"]), len(second["endpoints"])] == [3, 2]
    (update,) = writes(slices(svc, pods[:6], [first, second], limit=3))
    assert isinstance(update, Update)
    assert len(update.obj["endpoints"]) == 3
    assert update.obj["metadata"]["name"] == second["metadata"]["name"]
    gone = [pods[1], *pods[2:6]]
    (update,) = writes(slices(svc, gone, [first, second], limit=3))
    assert isinstance(update, Update)  # one left the first slice, and another took its place there
    assert {each["addresses"][0] for each in update.obj["endpoints"]} == {"10.1.0.2", "10.1.0.3", "10.1.0.6"}


def test_a_slice_that_becomes_empty_goes() -> None:
    svc = service(80)
    pods = [backend(number) for number in range(1, 6)]
    present = [stored(create, n) for n, create in enumerate(writes(slices(svc, pods, limit=3), Create))]
    actions = slices(svc, pods[:3], present, limit=3)
    assert [delete.obj["metadata"]["name"] for delete in writes(actions, Delete)] == ["web-1"]
    (update,) = writes(slices(svc, [], present[:1], limit=3))
    assert isinstance(update, Update)
    assert update.obj["endpoints"] == []


def test_labels_of_the_service_are_copied_when_they_change() -> None:
    svc, pods = service(80), [backend(1)]
    (create,) = writes(slices(svc, pods), Create)
    svc["metadata"]["labels"] = {"tier": "back"}
    (update,) = writes(slices(svc, pods, [stored(create)]), Update)
    assert update.obj["metadata"]["labels"]["tier"] == "back"


def test_hostnames_and_headless() -> None:
    svc = service(clusterIP="None")
    named = backend(1)
    named["spec"] |= {"hostname": "db-0", "subdomain": "web"}
    (create,) = writes(slices(svc, [named]), Create)
    assert create.obj["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    assert create.obj["endpoints"][0]["hostname"] == "db-0"
    assert create.obj["ports"] == []


@pytest.mark.parametrize(
    ("distribution", "hints"),
    [
        ("PreferClose", {"forZones": [{"name": "z1"}]}),
        ("PreferSameZone", {"forZones": [{"name": "z1"}]}),
        ("PreferSameNode", {"forZones": [{"name": "z1"}], "forNodes": [{"name": "n1"}]}),
    ],
)
def test_hints_keep_traffic_close(distribution: str, hints: Object) -> None:
    svc = service(80, trafficDistribution=distribution)
    (create,) = writes(slices(svc, [backend(1)], zones={"n1": "z1"}), Create)
    assert create.obj["endpoints"][0]["hints"] == hints


# ---------------------------------------------------------------- Endpoints


def test_endpoints_group_addresses_by_ports_and_readiness() -> None:
    svc = service(80, {"name": "b", "port": 81, "targetPort": 81, "protocol": "TCP"})
    pods = [backend(2), backend(1), backend(3, ready=False), deleting(backend(4))]
    (create,) = writes(endpoints.reconcile(endpoints.View(svc, None, pods)), Create)
    assert create.obj["metadata"]["labels"] == {
        "tier": "front",
        "endpoints.kubernetes.io/managed-by": "endpoint-controller",
    }
    (subset,) = create.obj["subsets"]
    assert [address["ip"] for address in subset["addresses"]] == ["10.1.0.1", "10.1.0.2"]
    assert [address["ip"] for address in subset["notReadyAddresses"]] == ["10.1.0.3"]
    assert subset["ports"] == [{"port": 80, "protocol": "TCP"}, {"name": "b", "port": 81, "protocol": "TCP"}]
    assert endpoints.reconcile(endpoints.View(svc, create.obj, pods)) == ()


def test_endpoints_over_capacity_are_cut_ready_first() -> None:
    svc = service(80)
    pods = []
    for number in range(1100):
        made = backend(1, ready=number < 900)
        made["metadata"]["uid"] = f"u{number}"
        pods.append(made)
    (create,) = writes(endpoints.reconcile(endpoints.View(svc, None, pods)), Create)
    (subset,) = create.obj["subsets"]
    assert (len(subset["addresses"]), len(subset["notReadyAddresses"])) == (900, 100)
    assert create.obj["metadata"]["annotations"]["endpoints.kubernetes.io/over-capacity"] == "truncated"
    assert endpoints.reconcile(endpoints.View(svc, create.obj, pods)) == ()


def test_endpoints_go_with_their_service() -> None:
    (create,) = writes(endpoints.reconcile(endpoints.View(service(80), None, [])), Create)
    (delete,) = writes(endpoints.reconcile(endpoints.View(None, create.obj, [])))
    assert isinstance(delete, Delete)
    own = obj("Endpoints", "mine")
    assert endpoints.reconcile(endpoints.View(None, own, [])) == ()


# ---------------------------------------------------------------- hints by the CPU of zones


def node(name: str, zone: str, cpu: str = "4", **labels: str) -> Object:
    ready = [{"type": "Ready", "status": "True"}]
    labels = {"topology.kubernetes.io/zone": zone, **labels} if zone else labels
    status = {"conditions": ready, "allocatable": {"cpu": cpu}}
    return obj("Node", name, namespace="", m_labels=labels, status=status)


@pytest.mark.parametrize(
    ("zones", "cpu", "expected"),
    [
        ("aabb", {"a": "4", "b": "4"}, "aabb"),
        ("aaab", {"a": "4", "b": "4"}, "aabb"),
        ("aaaaaa", {"a": "4", "b": "4"}, "aaabbb"),
        ("aaaabbbb", {"a": "6", "b": "2"}, "aaaaaabb"),
        ("cccccc", {"a": "4", "b": "4"}, "bbbaaa"),
    ],
)
def test_endpoints_are_shared_out_by_cpu(zones: str, cpu: dict[str, str], expected: str) -> None:
    ratios = topology_hints.zone_ratios([node(zone, zone, amount) for zone, amount in cpu.items()])
    given = topology_hints.spread([{"zone": zone} for zone in zones], ratios)
    assert Counter(given) == Counter(expected)
    for zone, share in topology_hints.shares(ratios, len(zones)).items():
        assert share.least <= Counter(given)[zone] <= share.most


@pytest.mark.parametrize(
    ("zones", "nodes", "why"),
    [
        ("ab", [node("a", "a")], "Nodes only ready in one zone"),
        ("ab", [node("a", "a"), node("b", "")], "Insufficient Node information"),
        ("ab", [], "Insufficient Node information"),
        ("a", [node("a", "a"), node("b", "b")], "Insufficient number of endpoints (1 endpoints, 2 zones)"),
        (["a", ""], [node("a", "a"), node("b", "b")], "One or more endpoints do not have a zone specified"),
        ("ab", [node("a", "a", "1"), node("b", "b", "9")], "Unable to allocate minimum required endpoints"),
    ],
)
def test_where_there_can_be_no_hints(zones: Any, nodes: list[Object], why: str) -> None:
    with pytest.raises(topology_hints.Impossible) as caught:
        topology_hints.spread([{"zone": zone} for zone in zones], topology_hints.zone_ratios(nodes))
    assert str(caught.value).startswith(why)
