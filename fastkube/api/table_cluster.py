"""Cells of the kinds that describe a cluster: nodes, networking, storage, RBAC, policy, configuration."""

from __future__ import annotations

from typing import Any

from fastkube.api.table_text import (
    NONE,
    UNKNOWN,
    UNSET,
    Cell,
    Object,
    Printer,
    age,
    balancer_addresses,
    condition,
    human_duration,
    joined,
    name,
    selector,
    shortened,
    since,
)
from fastkube.api.table_text import labels as label_text


def _spec(obj: Object) -> Object:
    found: Object = obj.get("spec") or {}
    return found


def _status(obj: Object) -> Object:
    found: Object = obj.get("status") or {}
    return found


# ---------------------------------------------------------------- core


def aged(obj: Object, now: float) -> list[Cell]:
    """Kinds that show nothing but their name and age."""
    return [name(obj), age(obj, now)]


def dated(obj: Object, now: float) -> list[Cell]:
    """Kinds without columns of their own show when they were made."""
    return [name(obj), obj["metadata"].get("creationTimestamp")]


def config_map(obj: Object, now: float) -> list[Cell]:
    return [name(obj), len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), age(obj, now)]


def secret(obj: Object, now: float) -> list[Cell]:
    return [name(obj), obj.get("type", ""), len(obj.get("data") or ()), age(obj, now)]


def namespace(obj: Object, now: float) -> list[Cell]:
    return [name(obj), _status(obj).get("phase", ""), age(obj, now)]


def component_status(obj: Object, now: float) -> list[Cell]:
    for each in obj.get("conditions") or ():
        if each.get("type") == "Healthy":
            word = "Healthy" if each.get("status") == "True" else "Unhealthy"
            return [name(obj), word, each.get("message", ""), each.get("error", "")]
    return [name(obj), "Unknown", "", ""]


def resource_quota(obj: Object, now: float) -> list[Cell]:
    hard, used = _status(obj).get("hard") or {}, _status(obj).get("used") or {}
    told = {key: f"{key}: {used.get(key, '0')}/{hard[key]}" for key in sorted(hard)}
    requests = ", ".join(text for key, text in told.items() if not key.startswith("limits."))
    limits = ", ".join(text for key, text in told.items() if key.startswith("limits."))
    return [name(obj), requests, limits, age(obj, now)]


def event(obj: Object, now: float) -> list[Cell]:
    """A core Event, the stored form of both event APIs."""
    first = since(obj.get("firstTimestamp") or obj.get("eventTime"), now)
    last = since(obj["lastTimestamp"], now) if obj.get("lastTimestamp") else first
    count = obj.get("count") or 1
    if series := obj.get("series"):
        last, count = since(series.get("lastObservedTime"), now), series.get("count") or 0
    about, source = obj.get("involvedObject") or {}, obj.get("source") or {}
    kind = about.get("kind", "").lower()
    component = source.get("component") or obj.get("reportingComponent") or ""
    instance = source.get("host") or obj.get("reportingInstance") or ""
    return [
        last,
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{kind}/{about['name']}" if about.get("name") else kind,
        about.get("fieldPath", ""),
        f"{component}, {instance}" if instance else component,
        obj.get("message", "").strip(),
        first,
        count,
        name(obj),
    ]


# ---------------------------------------------------------------- nodes

_ROLE_PREFIX = "node-role.kubernetes.io/"
_ROLE = "kubernetes.io/role"


def node(obj: Object, now: float) -> list[Cell]:
    info = _status(obj).get("nodeInfo") or {}
    ready = condition(obj, "Ready")
    words = ["Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"]
    if _spec(obj).get("unschedulable"):
        words.append("SchedulingDisabled")
    return [
        name(obj),
        joined(words),
        joined(_roles(obj)) or NONE,
        age(obj, now),
        info.get("kubeletVersion", ""),
        _address(obj, "InternalIP"),
        _address(obj, "ExternalIP"),
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _roles(obj: Object) -> list[str]:
    labels = obj["metadata"].get("labels") or {}
    roles = {key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX)}
    return sorted(role for role in roles | {labels.get(_ROLE, "")} if role)


def _address(obj: Object, kind: str) -> str:
    for each in _status(obj).get("addresses") or ():
        if each.get("type") == kind:
            return str(each.get("address", ""))
    return NONE


def runtime_class(obj: Object, now: float) -> list[Cell]:
    return [name(obj), obj.get("handler", ""), age(obj, now)]


def lease(obj: Object, now: float) -> list[Cell]:
    return [name(obj), _spec(obj).get("holderIdentity", ""), age(obj, now)]


def priority_class(obj: Object, now: float) -> list[Cell]:
    return [
        name(obj),
        obj.get("value") or 0,
        bool(obj.get("globalDefault")),
        age(obj, now),
        obj.get("preemptionPolicy", ""),
    ]


# ---------------------------------------------------------------- networking


def service(obj: Object, now: float) -> list[Cell]:
    spec = _spec(obj)
    ips = spec.get("clusterIPs") or ()
    return [
        name(obj),
        spec.get("type", ""),
        ips[0] if ips else NONE,
        _external_ip(obj),
        joined(map(_service_port, spec.get("ports") or ())) or NONE,
        age(obj, now),
        label_text(spec.get("selector")),
    ]


def _external_ip(obj: Object) -> str:
    spec = _spec(obj)
    own = joined(spec.get("externalIPs") or ())
    kind = spec.get("type")
    if kind in ("ClusterIP", "NodePort"):
        return own or NONE
    if kind == "LoadBalancer":
        return joined(filter(None, (balancer_addresses(obj), own))) or "<pending>"
    return spec.get("externalName", "") if kind == "ExternalName" else UNKNOWN


def _service_port(port: Object) -> str:
    outside = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port', 0)}{outside}/{port.get('protocol', '')}"


def endpoints(obj: Object, now: float) -> list[Cell]:
    subsets = obj.get("subsets") or ()
    told = [address for subset in subsets for address in _subset(subset)]
    return [name(obj), shortened(told, 3) if subsets else NONE, age(obj, now)]


def _subset(subset: Object) -> list[str]:
    ips = [each.get("ip", "") for each in subset.get("addresses") or ()]
    ports = subset.get("ports") or ()
    if not ports:
        return ips
    return [f"[{ip}]:{port['port']}" if ":" in ip else f"{ip}:{port['port']}" for port in ports for ip in ips]


def endpoint_slice(obj: Object, now: float) -> list[Cell]:
    ports = [
        str(each["port"] if each.get("port") is not None else each.get("name", "*")) for each in obj.get("ports") or ()
    ]
    addresses = [address for each in obj.get("endpoints") or () for address in each.get("addresses") or ()]
    return [
        name(obj),
        obj.get("addressType", ""),
        shortened(ports, 3) or UNSET,
        shortened(addresses, 3) or UNSET,
        age(obj, now),
    ]


def ingress(obj: Object, now: float) -> list[Cell]:
    spec = _spec(obj)
    return [
        name(obj),
        spec.get("ingressClassName", NONE),
        _hosts(spec.get("rules") or []),
        balancer_addresses(obj),
        "80, 443" if spec.get("tls") else "80",
        age(obj, now),
    ]


def _hosts(rules: list[Object]) -> str:
    """The first three hosts; the count of the rest is one of rules, with a host or without."""
    hosts: list[str] = []
    more = False
    for rule in rules:
        more = more or len(hosts) == 3
        if not more and rule.get("host"):
            hosts.append(rule["host"])
    told = joined(hosts) or "*"
    return f"{told} + {len(rules) - 3} more..." if more else told


def ingress_class(obj: Object, now: float) -> list[Cell]:
    spec = _spec(obj)
    told = NONE
    if parameters := spec.get("parameters"):
        group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") is not None else ""
        told = f"{parameters.get('kind', '')}{group}/{parameters.get('name', '')}"
    return [name(obj), spec.get("controller", ""), told, age(obj, now)]


def network_policy(obj: Object, now: float) -> list[Cell]:
    return [name(obj), selector(_spec(obj).get("podSelector") or {}), age(obj, now)]


def service_cidr(obj: Object, now: float) -> list[Cell]:
    return [name(obj), joined(_spec(obj).get("cidrs") or ()), age(obj, now)]


def ip_address(obj: Object, now: float) -> list[Cell]:
    """Upstream writes an age which no column announces."""
    told = NONE
    if parent := _spec(obj).get("parentRef"):
        resource = parent.get("resource", "") + (f".{parent['group']}" if parent.get("group") else "")
        told = "/".join(filter(None, (resource.lower(), parent.get("namespace"), parent.get("name"))))
    return [name(obj), told, age(obj, now)]


# ---------------------------------------------------------------- storage

_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
_CLASS = "volume.beta.kubernetes.io/storage-class"
_DEFAULT_CLASS = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
_DEFAULT_ATTRIBUTES_CLASS = ("volumeattributesclass.alpha.kubernetes.io/is-default-class",)


def persistent_volume(obj: Object, now: float) -> list[Cell]:
    spec, status = _spec(obj), _status(obj)
    claim = spec.get("claimRef")
    return [
        name(obj),
        (spec.get("capacity") or {}).get("storage", "0"),
        _modes(spec),
        spec.get("persistentVolumeReclaimPolicy", ""),
        _phase(obj),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        _storage_class(obj),
        spec.get("volumeAttributesClassName", UNSET),
        status.get("reason", ""),
        age(obj, now),
        spec.get("volumeMode", UNSET),
    ]


def persistent_volume_claim(obj: Object, now: float) -> list[Cell]:
    spec, status = _spec(obj), _status(obj)
    volume = spec.get("volumeName", "")
    return [
        name(obj),
        _phase(obj),
        volume,
        (status.get("capacity") or {}).get("storage", "0") if volume else "",
        _modes(status) if volume else "",
        _storage_class(obj),
        spec.get("volumeAttributesClassName", UNSET),
        age(obj, now),
        spec.get("volumeMode", UNSET),
    ]


def _phase(obj: Object) -> str:
    return "Terminating" if obj["metadata"].get("deletionTimestamp") else str(_status(obj).get("phase", ""))


def _modes(holder: Object) -> str:
    given = holder.get("accessModes") or ()
    return joined(short for mode, short in _MODES.items() if mode in given)


def _storage_class(obj: Object) -> str:
    annotations = obj["metadata"].get("annotations") or {}
    told = annotations[_CLASS] if _CLASS in annotations else _spec(obj).get("storageClassName", "")
    return str(told)


def _marked_default(obj: Object, annotations: tuple[str, ...]) -> str:
    """The name, and whether the class is the default one."""
    given = obj["metadata"].get("annotations") or {}
    return f"{name(obj)} (default)" if any(given.get(key) == "true" for key in annotations) else name(obj)


def storage_class(obj: Object, now: float) -> list[Cell]:
    return [
        _marked_default(obj, _DEFAULT_CLASS),
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy", "Delete"),
        obj.get("volumeBindingMode", "Immediate"),
        bool(obj.get("allowVolumeExpansion")),
        age(obj, now),
    ]


def volume_attributes_class(obj: Object, now: float) -> list[Cell]:
    return [_marked_default(obj, _DEFAULT_ATTRIBUTES_CLASS), obj.get("driverName", ""), age(obj, now)]


def csi_driver(obj: Object, now: float) -> list[Cell]:
    spec = _spec(obj)
    requests = spec.get("tokenRequests")
    return [
        name(obj),
        spec.get("attachRequired") is not False,
        bool(spec.get("podInfoOnMount")),
        bool(spec.get("storageCapacity")),
        UNSET if requests is None else joined(each.get("audience", "") for each in requests),
        bool(spec.get("requiresRepublish")),
        joined(spec.get("volumeLifecycleModes") or ()) or NONE,
        age(obj, now),
    ]


def csi_node(obj: Object, now: float) -> list[Cell]:
    return [name(obj), len(_spec(obj).get("drivers") or ()), age(obj, now)]


def volume_attachment(obj: Object, now: float) -> list[Cell]:
    spec = _spec(obj)
    return [
        name(obj),
        spec.get("attacher", ""),
        (spec.get("source") or {}).get("persistentVolumeName", ""),
        spec.get("nodeName", ""),
        bool(_status(obj).get("attached")),
        age(obj, now),
    ]


# ---------------------------------------------------------------- RBAC, certificates, API services


def role_binding(obj: Object, now: float) -> list[Cell]:
    role, subjects = obj.get("roleRef") or {}, obj.get("subjects") or ()
    users = [each.get("name", "") for each in subjects if each.get("kind") == "User"]
    groups = [each.get("name", "") for each in subjects if each.get("kind") == "Group"]
    accounts = [
        f"{each.get('namespace', '')}/{each.get('name', '')}"
        for each in subjects
        if each.get("kind") == "ServiceAccount"
    ]
    reference = f"{role.get('kind', '')}/{role.get('name', '')}"
    return [name(obj), reference, age(obj, now), *(", ".join(found) for found in (users, groups, accounts))]


def signing_request(obj: Object, now: float) -> list[Cell]:
    spec = _spec(obj)
    seconds = spec.get("expirationSeconds")
    return [
        name(obj),
        age(obj, now),
        spec.get("signerName") or NONE,
        spec.get("username", ""),
        NONE if seconds is None else human_duration(seconds),
        _request_word(obj),
    ]


def _request_word(obj: Object) -> str:
    kinds = {each.get("type") for each in _status(obj).get("conditions") or ()}
    words = ["Denied" if "Denied" in kinds else "Approved" if "Approved" in kinds else "Pending"]
    if "Failed" in kinds:
        words.append("Failed")
    if _status(obj).get("certificate"):
        words.append("Issued")
    return joined(words)


def api_service(obj: Object, now: float) -> list[Cell]:
    backend = _spec(obj).get("service")
    available = condition(obj, "Available")
    word = "Unknown"
    if available is not None:
        word = available.get("status", "")
        if word != "True":
            word = f"{word} ({available.get('reason', '')})"
    where = f"{backend.get('namespace', '')}/{backend.get('name', '')}" if backend else "Local"
    return [name(obj), where, word, age(obj, now)]


# ---------------------------------------------------------------- admission, flow control, devices


def webhooks(obj: Object, now: float) -> list[Cell]:
    return [name(obj), len(obj.get("webhooks") or ()), age(obj, now)]


def admission_policy(obj: Object, now: float) -> list[Cell]:
    spec = _spec(obj)
    rules = spec.get("mutations" if obj.get("kind") == "MutatingAdmissionPolicy" else "validations") or ()
    kind = spec.get("paramKind")
    told = f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}" if kind else UNSET
    return [name(obj), len(rules), told, age(obj, now)]


def admission_policy_binding(obj: Object, now: float) -> list[Cell]:
    spec = _spec(obj)
    parameters = spec.get("paramRef") or {}
    told = UNSET
    if parameters.get("name"):
        told = f"{parameters.get('namespace') or '*'}/{parameters['name']}"
    elif parameters.get("selector") is not None:
        told = _go_selector(parameters["selector"])
    return [name(obj), spec.get("policyName", ""), told, age(obj, now)]


def _go_selector(told: Object) -> str:
    """A LabelSelector as Go's generated String method writes it."""
    given: dict[str, Any] = told.get("matchLabels") or {}
    labels = "".join(f"{key}: {given[key]}," for key in sorted(given))
    expressions = "".join(
        f"LabelSelectorRequirement{{Key:{each.get('key', '')},Operator:{each.get('operator', '')},"
        f"Values:[{' '.join(each.get('values') or ())}],}},"
        for each in told.get("matchExpressions") or ()
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )


def flow_schema(obj: Object, now: float) -> list[Cell]:
    spec = _spec(obj)
    dangling = condition(obj, "Dangling")
    return [
        name(obj),
        (spec.get("priorityLevelConfiguration") or {}).get("name", ""),
        spec.get("matchingPrecedence") or 0,
        (spec.get("distinguisherMethod") or {}).get("type", NONE),
        age(obj, now),
        "?" if dangling is None else dangling.get("status", ""),
    ]


def priority_level(obj: Object, now: float) -> list[Cell]:
    spec = _spec(obj)
    limited = spec.get("limited")
    queuing = ((limited or {}).get("limitResponse") or {}).get("queuing")
    return [
        name(obj),
        spec.get("type", ""),
        NONE if limited is None else limited.get("nominalConcurrencyShares") or 0,
        *(NONE if queuing is None else queuing.get(key) or 0 for key in ("queues", "handSize", "queueLengthLimit")),
        age(obj, now),
    ]


def resource_claim(obj: Object, now: float) -> list[Cell]:
    status = _status(obj)
    words = ["deleted"] if obj["metadata"].get("deletionTimestamp") else []
    if status.get("allocation") is not None:
        words.append("allocated")
        if status.get("reservedFor"):
            words.append("reserved")
    elif not words:
        words.append("pending")
    return [name(obj), joined(words), age(obj, now)]


def resource_slice(obj: Object, now: float) -> list[Cell]:
    spec = _spec(obj)
    return [
        name(obj),
        spec.get("nodeName", ""),
        spec.get("driver", ""),
        (spec.get("pool") or {}).get("name", ""),
        age(obj, now),
    ]


PRINTERS: dict[str, Printer] = {
    "APIService": api_service,
    "CSIDriver": csi_driver,
    "CSINode": csi_node,
    "CertificateSigningRequest": signing_request,
    "ClusterRoleBinding": role_binding,
    "ComponentStatus": component_status,
    "ConfigMap": config_map,
    "DeviceClass": aged,
    "EndpointSlice": endpoint_slice,
    "Endpoints": endpoints,
    "Event": event,
    "FlowSchema": flow_schema,
    "IPAddress": ip_address,
    "Ingress": ingress,
    "IngressClass": ingress_class,
    "Lease": lease,
    "MutatingAdmissionPolicy": admission_policy,
    "MutatingAdmissionPolicyBinding": admission_policy_binding,
    "MutatingWebhookConfiguration": webhooks,
    "Namespace": namespace,
    "NetworkPolicy": network_policy,
    "Node": node,
    "PersistentVolume": persistent_volume,
    "PersistentVolumeClaim": persistent_volume_claim,
    "PriorityClass": priority_class,
    "PriorityLevelConfiguration": priority_level,
    "ResourceClaim": resource_claim,
    "ResourceClaimTemplate": aged,
    "ResourceQuota": resource_quota,
    "ResourceSlice": resource_slice,
    "RoleBinding": role_binding,
    "RuntimeClass": runtime_class,
    "Secret": secret,
    "Service": service,
    "ServiceAccount": aged,
    "ServiceCIDR": service_cidr,
    "StorageClass": storage_class,
    "ValidatingAdmissionPolicy": admission_policy,
    "ValidatingAdmissionPolicyBinding": admission_policy_binding,
    "ValidatingWebhookConfiguration": webhooks,
    "VolumeAttachment": volume_attachment,
    "VolumeAttributesClass": volume_attributes_class,
}
