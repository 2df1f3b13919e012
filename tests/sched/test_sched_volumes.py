"""The volume plugins, case by case as upstream describes them."""

from __future__ import annotations

from typing import Any

import pytest
from schedobjects import ZONE, expression, node, pod

from fastkube.scheduler import config as configs
from fastkube.scheduler.framework import Cycle
from fastkube.scheduler.offline import OfflineScheduler
from fastkube.scheduler.preemption import Preemptor
from fastkube.scheduler.search import FitError

Object = dict[str, Any]


def claim(name: str = "data", *, volume: str = "", storage_class: str = "", size: str = "1Gi", **more: Any) -> Object:
    annotations = {**more.pop("annotations", {})}
    if volume:
        annotations["pv.kubernetes.io/bind-completed"] = "yes"
    spec: Object = {
        "accessModes": more.pop("modes", ["ReadWriteOnce"]),
        "resources": {"requests": {"storage": size}},
        **({"volumeName": volume} if volume else {}),
        **({"storageClassName": storage_class} if storage_class else {}),
        **more.pop("spec", {}),
    }
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "annotations": annotations, **more}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def volume(name: str = "pv", *, on: dict[str, list[str]] | None = None, size: str = "10Gi", **more: Any) -> Object:
    """`on`: label → values that its node must have."""
    spec: Object = {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], **more.pop("spec", {})}
    if on:
        terms = [{"matchExpressions": [expression(key, "In", *values) for key, values in on.items()]}]
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": terms}}
    metadata = {"name": name, "uid": f"uid-{name}", "labels": more.pop("labels", {})}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": metadata,
        "spec": spec,
        "status": {"phase": "Available"},
    }


def storage_class(name: str = "late", **more: Any) -> Object:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": "csi.example.com",
        "volumeBindingMode": "WaitForFirstConsumer",
        **more,
    }


def user(*claims: str, **more: Any) -> Object:
    volumes = [{"name": f"v{place}", "persistentVolumeClaim": {"claimName": name}} for place, name in enumerate(claims)]
    return pod(volumes=volumes, **more)


NODES = [node("a", {ZONE: "z1", "disk": "1"}), node("b", {ZONE: "z2", "disk": "2"}), node("c", {ZONE: "z3"})]


def where(objects: list[Object], wanted: Object) -> list[str] | str:
    """The nodes that take a Pod, or why none does."""
    scheduler = OfflineScheduler([*NODES, *objects])
    decision = scheduler.decide(scheduler.cache.parse(wanted))
    if not decision.node:
        return decision.message
    search = scheduler.profiles["default-scheduler"].search
    plan, extra = search.prepare(Cycle(scheduler.cache.parse(wanted)))
    plan.core.search(0, 100, extra)
    return sorted(info.name for info in search.nodes_found(plan.core))


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        pytest.param([claim(volume="pv"), volume()], ["a", "b", "c"], id="bound, anywhere"),
        pytest.param([claim(volume="pv"), volume(on={"disk": ["2"]})], ["b"], id="bound, near its volume"),
        pytest.param(
            [claim(volume="pv"), volume(on={"disk": ["9"]})],
            "0/3 nodes are available: 3 node(s) didn't match PersistentVolume's node affinity.",
            id="bound, out of reach",
        ),
        pytest.param([], '0/3 nodes are available: persistentvolumeclaim "data" not found.', id="missing claim"),
        pytest.param(
            [claim(deletionTimestamp="2026-01-01T00:00:00Z")],
            '0/3 nodes are available: persistentvolumeclaim "data" is being deleted.',
            id="claim being deleted",
        ),
        pytest.param(
            [claim(storage_class="now"), storage_class("now", volumeBindingMode="Immediate")],
            "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
            id="unbound immediate claim",
        ),
        pytest.param([claim(storage_class="late"), storage_class()], ["a", "b", "c"], id="provisioned anywhere"),
        pytest.param(
            [
                claim(storage_class="late"),
                storage_class(allowedTopologies=[{"matchLabelExpressions": [{"key": ZONE, "values": ["z1", "z3"]}]}]),
            ],
            ["a", "c"],
            id="provisioned in allowed topologies",
        ),
        pytest.param(
            [claim(storage_class="late"), storage_class(provisioner="kubernetes.io/no-provisioner")],
            "0/3 nodes are available: 3 node(s) didn't find available persistent volumes to bind.",
            id="nothing to bind",
        ),
        pytest.param(
            [
                claim(storage_class="late"),
                storage_class(provisioner="kubernetes.io/no-provisioner"),
                volume(on={"disk": ["1"]}, spec={"storageClassName": "late"}),
            ],
            ["a"],
            id="a local volume to bind",
        ),
        pytest.param(
            [
                claim(storage_class="late", size="20Gi"),
                storage_class(provisioner="kubernetes.io/no-provisioner"),
                volume(spec={"storageClassName": "late"}),
            ],
            "0/3 nodes are available: 3 node(s) didn't find available persistent volumes to bind.",
            id="a volume too small",
        ),
        pytest.param(
            [claim(storage_class="late", annotations={"volume.kubernetes.io/selected-node": "c"}), storage_class()],
            ["c"],
            id="a node was selected already",
        ),
    ],
)
def test_volume_binding(objects: list[Object], expected: list[str] | str) -> None:
    assert where(objects, user("data")) == expected


def test_two_claims_need_two_volumes_on_one_node() -> None:
    objects = [
        claim("one", storage_class="late"),
        claim("two", storage_class="late"),
        storage_class(provisioner="kubernetes.io/no-provisioner"),
        volume("pv-a1", on={"disk": ["1"]}, spec={"storageClassName": "late"}),
        volume("pv-b1", on={"disk": ["2"]}, spec={"storageClassName": "late"}),
        volume("pv-b2", on={"disk": ["2"]}, spec={"storageClassName": "late"}),
    ]
    assert where(objects, user("one", "two")) == ["b"]


def test_storage_capacity_is_respected() -> None:
    driver = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIDriver",
        "metadata": {"name": "csi.example.com"},
        "spec": {"storageCapacity": True},
    }
    capacities = [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSIStorageCapacity",
            "metadata": {"name": zone, "namespace": "default"},
            "storageClassName": "late",
            "nodeTopology": {"matchLabels": {ZONE: zone}},
            "capacity": size,
        }
        for zone, size in (("z1", "1Gi"), ("z2", "100Gi"))
    ]
    objects = [claim(storage_class="late", size="5Gi"), storage_class(), driver, *capacities]
    assert where(objects, user("data")) == ["b"]
    objects[0] = claim(storage_class="late", size="500Gi")
    assert where(objects, user("data")) == "0/3 nodes are available: 3 node(s) did not have enough free storage."


def test_a_volume_is_not_promised_twice() -> None:
    """Reserving a node assumes its volume, so that the next Pod does not count on it; unreserving gives it back."""
    objects = [
        claim("one", storage_class="late"),
        claim("two", storage_class="late"),
        storage_class(provisioner="kubernetes.io/no-provisioner"),
        volume(on={"disk": ["1"]}, spec={"storageClassName": "late"}),
    ]
    scheduler = OfflineScheduler([*NODES, *objects])
    profile = scheduler.profiles["default-scheduler"]
    cycle = Cycle(scheduler.cache.parse(user("one")))
    placement = profile.search.place(cycle)
    assert placement.node.name == "a"
    for plugin in profile.reserve:
        plugin.reserve(cycle, placement.node)
    second = scheduler.cache.parse(user("two"))
    assert "didn't find available persistent volumes to bind" in scheduler.decide(second).message
    for plugin in profile.reserve:
        plugin.unreserve(cycle, placement.node)
    assert scheduler.decide(second).node == "a"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({ZONE: "z1"}, ["a"]),
        ({ZONE: "z1__z3"}, ["a", "c"]),
        ({ZONE: "z1__"}, ["a", "b", "c"]),  # makes no sense, and is passed over
        ({"failure-domain.beta.kubernetes.io/zone": "z2"}, ["b"]),
        ({ZONE: "z9"}, "0/3 nodes are available: 3 node(s) had no available volume zone."),
        ({}, ["a", "b", "c"]),
    ],
)
def test_volume_zone(labels: dict[str, str], expected: list[str] | str) -> None:
    assert where([claim(volume="pv"), volume(labels=labels)], user("data")) == expected


def test_a_node_without_zones_takes_any_volume() -> None:
    objects = [claim(volume="pv"), volume(labels={ZONE: "z1"}), node("plain")]
    assert where(objects, user("data")) == ["a", "plain"]


@pytest.mark.parametrize(
    ("ours", "theirs", "shared"),
    [
        ({"gcePersistentDisk": {"pdName": "d"}}, {"gcePersistentDisk": {"pdName": "d"}}, False),
        (
            {"gcePersistentDisk": {"pdName": "d", "readOnly": True}},
            {"gcePersistentDisk": {"pdName": "d", "readOnly": True}},
            True,
        ),
        ({"gcePersistentDisk": {"pdName": "d"}}, {"gcePersistentDisk": {"pdName": "e"}}, True),
        ({"awsElasticBlockStore": {"volumeID": "v"}}, {"awsElasticBlockStore": {"volumeID": "v"}}, False),
        (
            {"rbd": {"monitors": ["m", "n"], "image": "i"}},
            {"rbd": {"monitors": ["n"], "pool": "rbd", "image": "i"}},
            False,
        ),
        ({"rbd": {"monitors": ["m"], "image": "i"}}, {"rbd": {"monitors": ["n"], "image": "i"}}, True),
        ({"iscsi": {"iqn": "q"}}, {"iscsi": {"iqn": "q", "readOnly": True}}, False),
    ],
)
def test_disks_that_cannot_be_shared(ours: Object, theirs: Object, shared: bool) -> None:
    other = pod(node="a", volumes=[{"name": "v", **theirs}])
    found = where([other], pod(volumes=[{"name": "v", **ours}]))
    assert found == (["a", "b", "c"] if shared else ["b", "c"])


def test_a_claim_for_one_pod_only() -> None:
    objects = [claim(volume="pv", modes=["ReadWriteOncePod"]), volume()]
    assert where(objects, user("data")) == ["a", "b", "c"]
    assert where([*objects, user("data", node="a")], user("data")) == (
        "0/3 nodes are available: 3 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode "
        "already in-use by another pod."
    )


def test_a_driver_attaches_only_so_many_volumes() -> None:
    limit = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSINode",
        "metadata": {"name": "a"},
        "spec": {"drivers": [{"name": "csi.example.com", "nodeID": "a", "allocatable": {"count": 1}}]},
    }

    def bound(name: str) -> list[Object]:
        csi = {"csi": {"driver": "csi.example.com", "volumeHandle": f"handle-{name}"}}
        return [claim(name, volume=f"pv-{name}"), volume(f"pv-{name}", spec=csi)]

    objects = [limit, *bound("one"), *bound("two"), user("one", node="a")]
    assert where(objects, user("two")) == ["b", "c"]
    assert where(objects, user("one")) == ["a", "b", "c"]  # it is attached already
    assert where([limit, *bound("one"), *bound("two")], user("one", "two")) == ["b", "c"]
    only_a = pod_with_selector(user("two"))
    assert "1 node(s) exceed max volume count" in str(where(objects, only_a))


EBS, DISK = "kubernetes.io/aws-ebs", "kubernetes.io/gce-pd"
ZONAL = "projects/UNSPECIFIED/zones/l-r-a/disks/two"
REGIONAL = "projects/UNSPECIFIED/regions/l-r/disks/two"


@pytest.mark.parametrize(
    ("migrated", "limited", "one", "two", "labels", "fits"),
    [
        (EBS, "ebs.csi.aws.com", "one", {"awsElasticBlockStore": {"volumeID": "vol-2"}}, {}, False),
        (DISK, "ebs.csi.aws.com", "one", {"awsElasticBlockStore": {"volumeID": "vol-2"}}, {}, True),
        ("", "ebs.csi.aws.com", "one", {"awsElasticBlockStore": {"volumeID": "vol-2"}}, {}, True),
        (
            f"{DISK},{EBS}",
            "ebs.csi.aws.com",
            "vol-2",
            {"awsElasticBlockStore": {"volumeID": "aws://z1/vol-2"}},
            {},
            True,
        ),
        (DISK, "pd.csi.storage.gke.io", "one", {"gcePersistentDisk": {"pdName": "two"}}, {}, False),
        (DISK, "pd.csi.storage.gke.io", ZONAL, {"gcePersistentDisk": {"pdName": "two"}}, {ZONE: "l-r-a"}, True),
        (
            DISK,
            "pd.csi.storage.gke.io",
            REGIONAL,
            {"gcePersistentDisk": {"pdName": "two"}},
            {ZONE: "l-r-a__l-r-b"},
            True,
        ),
        ("kubernetes.io/cinder", "cinder.csi.openstack.org", "one", {"cinder": {"volumeID": "two"}}, {}, False),
        ("kubernetes.io/azure-disk", "disk.csi.azure.com", "one", {"azureDisk": {"diskURI": "two"}}, {}, False),
        (
            "kubernetes.io/portworx-volume",
            "pxd.portworx.com",
            "one",
            {"portworxVolume": {"volumeID": "two"}},
            {},
            False,
        ),
        ("kubernetes.io/azure-file", "file.csi.azure.com", "one", {"azureFile": {"shareName": "two"}}, {}, True),
    ],
)
def test_in_tree_volumes_count_for_the_driver_that_stands_in(
    migrated: str, limited: str, one: str, two: Object, labels: dict[str, str], fits: bool
) -> None:
    """On a node with room for one volume, which has `one`."""
    objects = [claim("two", volume="pv-two"), volume("pv-two", spec=two, labels=labels)]
    assert full_node_takes(migrated, limited, one, objects, user("two")) is fits
    if not labels:  # which an inline volume has none of
        assert full_node_takes(migrated, limited, one, [], pod(volumes=[{"name": "v", **two}])) is fits


@pytest.mark.parametrize(("migrated", "fits"), [("", True), (EBS, False), (DISK, True)])
def test_inline_and_coming_in_tree_volumes_count_as_well(migrated: str, fits: bool) -> None:
    inline = pod(volumes=[{"name": "v", "awsElasticBlockStore": {"volumeID": "vol-2"}}])
    assert full_node_takes(migrated, "ebs.csi.aws.com", "one", [], inline) is fits
    objects = [storage_class(provisioner=EBS), claim("two", storage_class="late")]
    assert full_node_takes(migrated, "ebs.csi.aws.com", "one", objects, user("two")) is fits


def csi_node(name: str, migrated: str, **limits: int) -> Object:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSINode",
        "metadata": {"name": name, "annotations": {"storage.alpha.kubernetes.io/migrated-plugins": migrated}},
        "spec": {"drivers": [{"name": driver, "nodeID": name, "allocatable": {"count": limit}}
                             for driver, limit in limits.items()]},
    }  # fmt: skip


def full_node_takes(migrated: str, driver: str, handle: str, objects: list[Object], wanted: Object) -> bool:
    csi = {"csi": {"driver": driver, "volumeHandle": handle}}
    full = [
        node("n", {DISK_ZONE: "l-r-a"}),
        csi_node("n", migrated, **{driver: 1}),
        claim("one", volume="pv-one"),
        volume("pv-one", spec=csi),
        user("one", node="n"),
    ]
    scheduler = OfflineScheduler([*full, *objects])
    decision = scheduler.decide(scheduler.cache.parse(wanted))
    assert decision.node or "node(s) exceed max volume count" in decision.message
    return bool(decision.node)


OLD_ZONE, OLD_REGION = "failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region"
EBS_ZONE, DISK_ZONE = "topology.ebs.csi.aws.com/zone", "topology.gke.io/zone"
VOLUME_ID, URI = {"volumeID": "vol-1"}, {"diskURI": "uri"}
ELSEWHERE = "0/1 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity."


@pytest.mark.parametrize(
    ("source", "on", "labels", "migrated", "of_node", "expected"),
    [
        ({"awsElasticBlockStore": VOLUME_ID}, {ZONE: ["z1"]}, {}, "", {ZONE: "z1"}, "n"),
        ({"awsElasticBlockStore": VOLUME_ID}, {ZONE: ["z1"]}, {}, EBS, {ZONE: "z1"}, ELSEWHERE),
        ({"awsElasticBlockStore": VOLUME_ID}, {ZONE: ["z1"]}, {}, EBS, {EBS_ZONE: "z1"}, "n"),
        ({"awsElasticBlockStore": VOLUME_ID}, {ZONE: ["z1"]}, {}, EBS, {EBS_ZONE: "z2", ZONE: "z1"}, ELSEWHERE),
        ({"awsElasticBlockStore": VOLUME_ID}, {ZONE: ["z1"]}, {}, f"{DISK},{EBS}", {EBS_ZONE: "z1"}, "n"),
        ({"awsElasticBlockStore": VOLUME_ID}, {ZONE: ["z1"]}, {}, DISK, {ZONE: "z1"}, "n"),
        ({"awsElasticBlockStore": VOLUME_ID}, {"disk": ["1"]}, {ZONE: "z1"}, EBS, {"disk": "1"}, ELSEWHERE),
        ({"awsElasticBlockStore": VOLUME_ID}, {"disk": ["1"]}, {ZONE: "z1"}, EBS, {"disk": "1", EBS_ZONE: "z1"}, "n"),
        ({"gcePersistentDisk": {"pdName": "d"}}, {}, {ZONE: "l-r-a__l-r-b"}, DISK, {DISK_ZONE: "l-r-b"}, "n"),
        ({"gcePersistentDisk": {"pdName": "d"}}, {}, {ZONE: "l-r-a__l-r-b"}, DISK, {DISK_ZONE: "l-r-c"}, ELSEWHERE),
        ({"cinder": {"volumeID": "d"}}, {OLD_ZONE: ["z1"], OLD_REGION: ["r"]}, {}, "kubernetes.io/cinder",
         {"topology.cinder.csi.openstack.org/zone": "z1", "topology.kubernetes.io/region": "r"}, "n"),
        ({"azureDisk": URI}, {ZONE: ["z1"]}, {}, "kubernetes.io/azure-disk", {ZONE: "z1"}, "n"),
        ({"azureDisk": {**URI, "kind": "Dedicated"}}, {}, {}, "kubernetes.io/azure-disk", {},
         "kind(Dedicated) is not supported in csi migration"),
        ({"awsElasticBlockStore": {"volumeID": "aws://z/disk"}}, {}, {}, EBS, {},
         "failed to translate Kubernetes ID to EBS Volume ID Invalid format for AWS volume (aws://z/disk)"),
        ({"gcePersistentDisk": {"pdName": "d"}}, {}, {ZONE: "a__b"}, DISK, {}, "failed to get region from zones: zone "
         "in unexpected format, expected: {locale}-{region}-{zone}, got: a"),
        ({"gcePersistentDisk": {"pdName": "d"}}, {}, {ZONE: "a-b-c__a-d-c"}, DISK, {}, "failed to get region from "
         "zones: multiple or no regions gotten from zones, got: map[a-b:{} a-d:{}]"),
    ],
)  # fmt: skip
def test_in_tree_volumes_are_near_as_their_driver_says(
    source: Object, on: dict[str, list[str]], labels: Object, migrated: str, of_node: dict[str, str], expected: str
) -> None:
    bound = [claim("data", volume="pv"), volume("pv", on=on, spec=source, labels=labels)]
    scheduler = OfflineScheduler([node("n", of_node), csi_node("n", migrated), *bound])
    decision = scheduler.decide(scheduler.cache.parse(user("data")))
    if expected.startswith(("failed", "kind")):
        expected = f'running "VolumeBinding" filter plugin: could not translate pv: {expected}'
    assert (decision.node or decision.message) == expected


def pod_with_selector(obj: Object) -> Object:
    obj["spec"]["nodeSelector"] = {"disk": "1"}
    return obj


def test_an_ephemeral_claim_must_belong_to_the_pod() -> None:
    obj = pod("p", volumes=[{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}}])
    assert where([], obj) == (
        "0/3 nodes are available: waiting for ephemeral volume controller to create the "
        'persistentvolumeclaim "p-scratch".'
    )
    stranger = claim("p-scratch", volume="pv")
    assert where([stranger, volume()], obj) == (
        "0/3 nodes are available: PVC default/p-scratch was not created for pod default/p (pod is not owner)."
    )
    owner = {"uid": obj["metadata"]["uid"], "controller": True, "kind": "Pod", "name": "p", "apiVersion": "v1"}
    own = claim("p-scratch", volume="pv", ownerReferences=[owner])
    assert where([own, volume()], obj) == ["a", "b", "c"]


def with_one_slot() -> list[Object]:
    """A node that one volume may be attached to, and claims of two."""
    limit = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSINode",
        "metadata": {"name": "a"},
        "spec": {"drivers": [{"name": "csi.example.com", "nodeID": "a", "allocatable": {"count": 1}}]},
    }
    objects: list[Object] = [node("a"), limit]
    for name in ("one", "two"):
        csi = {"csi": {"driver": "csi.example.com", "volumeHandle": name}}
        objects += [claim(name, volume=f"pv-{name}"), volume(f"pv-{name}", spec=csi)]
    return objects


def test_preemption_frees_a_volume_slot() -> None:
    """What refuses a node for one Pod only is asked again in a trial without the victims."""
    scheduler = OfflineScheduler([*with_one_slot(), user("one", node="a", priority=1)])
    profile = scheduler.profiles["default-scheduler"]
    cycle = Cycle(scheduler.cache.parse(user("two", priority=5)))
    with pytest.raises(FitError) as caught:
        profile.search.place(cycle)
    assert profile.plugins["DefaultPreemption"].post_filter(cycle, caught.value, profile.search).node == "a"


def test_victims_found_for_a_pod_with_volumes_are_not_those_of_one_without() -> None:
    """Though the two ask for the same otherwise."""
    holder = user("one", name="holder", node="a", priority=2, requests={"cpu": "1"})
    filler = pod("filler", node="a", priority=1, requests={"cpu": "3"})
    scheduler = OfflineScheduler([*with_one_slot(), holder, filler])
    profile = scheduler.profiles["default-scheduler"]
    preemptor = Preemptor(scheduler.cache, lambda: 1e9, lambda: (1, []))

    def victims(wanted: Object) -> list[str]:
        cycle = Cycle(scheduler.cache.parse(wanted))
        with pytest.raises(FitError) as caught:
            profile.search.place(cycle)
        found = preemptor.preempt(cycle, caught.value, profile.search).victims
        return [each.name for each in found.pods] if found else []

    with_volume, without = user("two", priority=5, requests={"cpu": "1"}), pod(priority=5, requests={"cpu": "1"})
    for _ in range(2):
        assert victims(with_volume) == ["holder"]
        assert victims(without) == ["filler"]


@pytest.mark.parametrize(("scores", "best"), [((0, 10), "small"), ((10, 0), "large")])
def test_volumes_are_scored_by_how_much_of_them_is_asked_for(scores: tuple[int, int], best: str) -> None:
    shape = [{"utilization": 0, "score": scores[0]}, {"utilization": 100, "score": scores[1]}]
    config = configs.parse(
        {
            "apiVersion": configs.API_VERSION,
            "kind": configs.KIND,
            "profiles": [{"pluginConfig": [{"name": "VolumeBinding", "args": {"shape": shape}}]}],
        }
    )
    nodes = [node(name, {ZONE: name}) for name in ("small", "large")]
    sizes = {"small": "10Gi", "large": "100Gi"}
    spec = {"storageClassName": "late"}
    volumes = [volume(f"pv-{name}", on={ZONE: [name]}, size=sizes[name], spec=spec) for name in sizes]
    wanted = claim(storage_class="late", size="9Gi")
    for objects in (volumes, [driver(), *(room(name, sizes[name]) for name in sizes)]):
        scheduler = OfflineScheduler([*nodes, storage_class(), wanted, *objects], config)
        assert scheduler.decide(scheduler.cache.parse(user("data"))).node == best


def driver() -> Object:
    spec = {"storageCapacity": True}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIDriver",
        "metadata": {"name": "csi.example.com"},
        "spec": spec,
    }


def room(zone: str, size: str) -> Object:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIStorageCapacity",
        "metadata": {"name": f"room-{zone}", "namespace": "default"},
        "storageClassName": "late",
        "nodeTopology": {"matchLabels": {ZONE: zone}},
        "capacity": size,
    }
