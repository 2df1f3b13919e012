"""Addresses and ports of Services: allotted once, kept, freed, never given twice."""

import asyncio
from pathlib import Path

import pytest
from clusters import CIDR, Cluster, refused, running, service

from fastkube.errors import ApiError
from fastkube.registry.allocators import NodePorts, Pool
from fastkube.registry.bootstrap import bootstrap, publish_address
from fastkube.registry.services import ServiceAddresses


def address_of(obj: dict) -> str:
    assert obj["spec"]["clusterIPs"] == [obj["spec"]["clusterIP"]]
    return obj["spec"]["clusterIP"]


def port_of(obj: dict) -> int:
    return obj["spec"]["ports"][0]["nodePort"]


async def test_an_address_has_an_object_as_long_as_its_service(cluster: Cluster):
    address = address_of(await cluster.create("services", service()))
    owner = cluster.get("ipaddresses.networking.k8s.io", address)["spec"]["parentRef"]
    assert owner == {"resource": "services", "namespace": "default", "name": "s"}
    await cluster.delete("services", "s")
    assert not cluster.exists("ipaddresses.networking.k8s.io", address)


async def test_an_address_in_use_or_out_of_range_is_refused(cluster: Cluster):
    address = address_of(await cluster.create("services", service()))
    async with refused(422, "Invalid", f"failed to allocate IP {address}: provided IP is already allocated"):
        await cluster.create("services", service("t", clusterIP=address))
    async with refused(422, "Invalid", "the provided network does not match the current range"):
        await cluster.create("services", service("t", clusterIP="203.0.113.7"))
    async with refused(422, "Invalid", f"(203.0.113.7) is not in the valid range. The range of valid IPs is {CIDR}"):
        await cluster.create("services", service("t", clusterIP="203.0.113.7"), dry_run=True)
    for outside in ("10.96.0.0", "10.96.255.255"):
        async with refused(422, "Invalid", f"The range of valid IPs is {CIDR}"):
            await cluster.create("services", service("t", clusterIP=outside))
    async with refused(422, "Invalid", "must be a valid IP address"):
        await cluster.create("services", service("t", clusterIP="bad"))
    assert not cluster.exists("services", "t")


async def test_a_service_that_is_refused_leaves_no_address_behind(cluster: Cluster):
    before = cluster.names("ipaddresses.networking.k8s.io")
    await cluster.create("services", service())
    async with refused(409, "AlreadyExists"):
        await cluster.create("services", service())
    async with refused(422, "Invalid"):
        await cluster.create("services", service("Bad_"))
    await cluster.create("services", service("t"), dry_run=True)
    await cluster.delete("services", "s")
    assert cluster.names("ipaddresses.networking.k8s.io") == before


async def test_concurrent_services_all_get_addresses_of_their_own(cluster: Cluster):
    made = await asyncio.gather(*(cluster.create("services", service(f"s{n}", type="NodePort")) for n in range(60)))
    assert len({address_of(obj) for obj in made}) == 60
    assert len({port_of(obj) for obj in made}) == 60


async def test_one_address_asked_for_by_many_goes_to_one(cluster: Cluster):
    asks = (cluster.create("services", service(f"s{n}", clusterIP="10.96.0.77")) for n in range(10))
    results = await asyncio.gather(*asks, return_exceptions=True)
    assert sum(isinstance(result, ApiError) for result in results) == 9


async def test_an_address_does_not_change(cluster: Cluster):
    created = await cluster.create("services", service())
    async with refused(422, "Invalid", "may not change once set"):
        await cluster.patch("services", "s", {"spec": {"clusterIP": "None"}})
    kept = await cluster.patch("services", "s", {"spec": {"clusterIP": "", "clusterIPs": None}})
    assert address_of(kept) == address_of(created)
    kept = await cluster.update("services", service())
    assert address_of(kept) == address_of(created)


async def test_headless_services_have_no_address(cluster: Cluster):
    headless = (await cluster.create("services", service(clusterIP="None")))["spec"]
    assert (headless["clusterIPs"], headless["ipFamilies"], headless["ipFamilyPolicy"]) == (
        ["None"],
        ["IPv4"],
        "SingleStack",
    )
    free = (await cluster.create("services", service("t", clusterIP="None", selector=None)))["spec"]
    assert (free["ipFamilies"], free["ipFamilyPolicy"]) == (["IPv4", "IPv6"], "RequireDualStack")


@pytest.mark.parametrize("spec", [{"ipFamilyPolicy": "RequireDualStack"}, {"ipFamilies": ["IPv6"]}])
async def test_what_an_ipv4_cluster_has_not_is_refused(cluster: Cluster, spec: dict):
    async with refused(422, "Invalid", "configured"):
        await cluster.create("services", service(**spec))


# ---------------------------------------------------------------- node ports


async def test_node_ports_are_allotted_kept_and_freed(cluster: Cluster):
    first = await cluster.create("services", service(type="NodePort"))
    port = port_of(first)
    assert 30000 <= port <= 32767
    assert port_of(await cluster.update("services", service(type="NodePort"))) == port
    async with refused(422, "Invalid", "provided port is already allocated"):
        await cluster.create("services", service("t", type="NodePort", ports=[{"port": 80, "nodePort": port}]))
    await cluster.delete("services", "s")
    again = await cluster.create("services", service("t", type="NodePort", ports=[{"port": 80, "nodePort": port}]))
    assert port_of(again) == port


async def test_a_node_port_out_of_range_is_refused(cluster: Cluster):
    async with refused(422, "Invalid", "The range of valid ports is 30000-32767"):
        await cluster.create("services", service(type="NodePort", ports=[{"port": 80, "nodePort": 80}]))


async def test_a_dry_run_looks_at_no_range_of_node_ports(cluster: Cluster):
    ports = [{"name": "a", "port": 80, "nodePort": 80}, {"name": "b", "port": 81, "nodePort": 80}]
    made = await cluster.create("services", service(type="NodePort", ports=ports[:1]), dry_run=True)
    assert made["spec"]["ports"][0]["nodePort"] == 80
    async with refused(422, "Invalid", "spec.ports[1].nodePort: Invalid value: 80: provided port is already allocated"):
        await cluster.create("services", service(type="NodePort", ports=ports), dry_run=True)


async def test_a_service_of_another_name_shows_no_internal_traffic_policy(cluster: Cluster):
    made = await cluster.create(
        "services", service(type="ExternalName", externalName="a.example", internalTrafficPolicy="Cluster")
    )
    assert "internalTrafficPolicy" not in made["spec"]


async def test_one_node_port_serves_all_protocols_of_a_port(cluster: Cluster):
    ports = [{"port": 53, "name": "t", "protocol": "TCP"}, {"port": 53, "name": "u", "protocol": "UDP"}]
    made = (await cluster.create("services", service(type="NodePort", ports=ports)))["spec"]["ports"]
    assert made[0]["nodePort"] == made[1]["nodePort"]


async def test_another_node_port_frees_the_old_one(cluster: Cluster):
    port = port_of(await cluster.create("services", service(type="NodePort")))
    other = 31000 if port != 31000 else 31001
    changed = await cluster.update("services", service(type="NodePort", ports=[{"port": 80, "nodePort": other}]))
    assert port_of(changed) == other
    taken = {item.key for item in cluster.store.range(NodePorts.PREFIX, NodePorts.PREFIX[:-1] + b"0").items}
    assert taken == {NodePorts.PREFIX + str(other).encode()}


async def test_local_load_balancers_get_a_health_check_port(cluster: Cluster):
    made = (await cluster.create("services", service(type="LoadBalancer", externalTrafficPolicy="Local")))["spec"]
    assert 30000 <= made["healthCheckNodePort"] <= 32767
    assert made["healthCheckNodePort"] != made["ports"][0]["nodePort"]
    bare = service("t", type="LoadBalancer", allocateLoadBalancerNodePorts=False)
    assert "nodePort" not in (await cluster.create("services", bare))["spec"]["ports"][0]


# ---------------------------------------------------------------- ranges


async def test_a_full_range_says_so(cluster: Cluster, tmp_path: Path):
    await cluster.delete("servicecidrs.networking.k8s.io", "kubernetes")
    small = ServiceAddresses(cluster.store, "10.7.0.0/29", "40000-40001")
    cluster.registry._attendants = {("", "services"): small}
    made = [address_of(await cluster.create("services", service(f"s{n}"))) for n in range(6)]
    assert sorted(made) == [f"10.7.0.{n}" for n in range(1, 7)]
    async with refused(500, "InternalError", "range is full"):
        await cluster.create("services", service("last"))
    small.close()


async def test_further_cidrs_are_used_when_they_are_ready(cluster: Cluster):
    cidr = {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.8.0.0/24"]}}
    await cluster.create("servicecidrs.networking.k8s.io", cidr)
    async with refused(422, "Invalid", "the provided network does not match the current range"):
        await cluster.create("services", service(clusterIP="10.8.0.9"))
    ready = {
        "type": "Ready",
        "status": "True",
        "lastTransitionTime": "2027-01-15T08:00:00Z",
        "reason": "",
        "message": "",
    }
    await cluster.patch("servicecidrs.networking.k8s.io/status", "more", {"status": {"conditions": [ready]}})
    assert address_of(await cluster.create("services", service(clusterIP="10.8.0.9"))) == "10.8.0.9"


@pytest.mark.parametrize(
    ("cidr", "ports", "flag"),
    [
        ("10.0.0.0", "30000-32767", "service-cluster-ip-range"),
        ("10.0.0.1/16", "30000-32767", "service-cluster-ip-range"),
        ("fd00::/108", "30000-32767", "service-cluster-ip-range"),
        (CIDR, "1", "service-node-port-range"),
        (CIDR, "5-4", "service-node-port-range"),
    ],
)
async def test_ranges_that_make_no_sense_name_their_flag(cluster: Cluster, cidr: str, ports: str, flag: str):
    with pytest.raises(ValueError, match=flag):
        ServiceAddresses(cluster.store, cidr, ports)


async def test_what_is_taken_is_known_again_after_a_restart(cluster: Cluster):
    port = port_of(await cluster.create("services", service(type="NodePort")))
    pool = Pool(cluster.store, NodePorts.PREFIX, lambda text: int(text) if text.isdigit() else None)
    assert not pool.is_free(port) and pool.is_free(port + 1)
    pool.close()


# ---------------------------------------------------------------- bootstrap


async def test_a_fresh_server_has_what_clients_rely_on(cluster: Cluster):
    assert {"default", "kube-system", "kube-public", "kube-node-lease"} <= set(cluster.names("namespaces"))
    roles = cluster.names("clusterroles.rbac.authorization.k8s.io")
    assert {"cluster-admin", "system:kube-scheduler", "system:node"} <= set(roles)
    assert len(cluster.names("flowschemas.flowcontrol.apiserver.k8s.io")) == 11
    assert cluster.get("servicecidrs.networking.k8s.io", "kubernetes")["spec"] == {"cidrs": [CIDR]}
    assert "10.96.0.1" in cluster.names("ipaddresses.networking.k8s.io")


async def test_starting_again_writes_only_what_was_broken(cluster: Cluster):
    before = cluster.store.revision
    await bootstrap(cluster.registry, CIDR)
    assert cluster.store.revision == before
    role = "clusterroles.rbac.authorization.k8s.io"
    whole = cluster.get(role, "system:kube-scheduler")["rules"]
    added = {"apiGroups": [""], "resources": ["x"], "verbs": ["get"]}
    await cluster.patch(role, "system:kube-scheduler", {"rules": [*whole[1:], added]})
    await cluster.delete("namespaces", "kube-node-lease")
    await bootstrap(cluster.registry, CIDR)
    mended = cluster.get(role, "system:kube-scheduler")["rules"]
    assert all(rule in mended for rule in (*whole, added))
    off = {"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}, "rules": []}
    await cluster.patch(role, "system:kube-scheduler", off)
    await bootstrap(cluster.registry, CIDR)
    assert not cluster.get(role, "system:kube-scheduler").get("rules")


async def test_the_kubernetes_service_leads_to_the_server(cluster: Cluster):
    for port in (6443, 6444):
        await publish_address(cluster.registry, "192.0.2.9", port)
        made = cluster.get("services", "kubernetes")["spec"]
        assert (made["clusterIP"], made["ports"][0]["targetPort"]) == ("10.96.0.1", port)
        subset = cluster.get("endpoints", "kubernetes")["subsets"][0]
        assert (subset["addresses"], subset["ports"][0]["port"]) == ([{"ip": "192.0.2.9"}], port)
        assert cluster.get("endpointslices.discovery.k8s.io", "kubernetes")["ports"][0]["port"] == port
    before = cluster.store.revision
    await publish_address(cluster.registry, "192.0.2.9", 6444)
    assert cluster.store.revision == before


async def test_servers_of_one_process_do_not_know_of_each_other(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with running(tmp_path / "a") as one, running(tmp_path / "b") as other:
        await one.create("services", service(clusterIP="10.96.0.50"))
        assert address_of(await other.create("services", service(clusterIP="10.96.0.50"))) == "10.96.0.50"


async def test_a_type_that_there_is_not_keeps_the_address(cluster: Cluster):
    await cluster.create("services", service())
    async with refused(422, "Invalid", 'is invalid: spec.type: Unsupported value: "odd"'):
        await cluster.update("services", service(type="odd"))


async def test_an_address_that_is_changed_alone_is_the_first_of_all(cluster: Cluster):
    await cluster.create("services", service())
    async with refused(422, "Invalid", 'spec.clusterIPs[0]: Invalid value: ["None"]: may not change once set'):
        await cluster.patch("services", "s", {"spec": {"clusterIP": "None", "clusterIPs": None}})
