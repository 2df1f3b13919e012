"""Where objects of a kind differ from each other without meaning anything different: the holes of shapes (_shapes.pyx).

A place belongs here if whatever the server does to an object — defaults, preparation, validation, admission,
ownership — copies or drops what stands there, compares it with what stands at the same place or at one of its family
before, and looks at it in no other way, as long as it is well-formed. What looks at the order of times sees it too.
Kinds that are not here have none.
"""

from __future__ import annotations

from typing import Any

from fastkube._shapes import (
    ACCESS,
    ADDRESS,
    ANY,
    FIELDS,
    FOREIGN,
    GENERATION,
    LABEL,
    MICRO_TIME,
    NAME,
    NETWORK,
    NODE,
    NOTHING,
    NUMBER,
    PREFIX,
    TEXT,
    TIME,
    UID,
    VERSION,
    Place,
)

_Places = dict[bytes, Any]

_OWNERS: _Places = {b"name": NAME, b"uid": UID}
_METADATA: _Places = {
    b"name": LABEL,
    b"generateName": PREFIX,
    b"uid": UID,
    b"creationTimestamp": TIME,
    b"generation": GENERATION,
    b"annotations": {FOREIGN: TEXT},
    b"ownerReferences": _OWNERS,
    b"managedFields": {b"time": TIME, b"fieldsV1": FIELDS},
}

_POD_LABELS: _Places = {
    b"pod-template-hash": LABEL,
    b"controller-revision-hash": LABEL,
    b"controller-uid": UID,
    b"batch.kubernetes.io/controller-uid": UID,
    b"job-name": LABEL,
    b"batch.kubernetes.io/job-name": LABEL,
    b"statefulset.kubernetes.io/pod-name": LABEL,
    FOREIGN: LABEL,  # of Kubernetes' own a binding overwrites some with the node's
}
_STATE: _Places = {
    b"running": {b"startedAt": TIME},
    b"terminated": {b"startedAt": TIME, b"finishedAt": TIME, b"containerID": TEXT, b"message": TEXT},
    b"waiting": {b"message": TEXT},
}
_CONTAINER_STATUS: _Places = {b"containerID": TEXT, b"state": _STATE, b"lastState": _STATE}
_CONDITIONS: _Places = {
    b"lastTransitionTime": TIME,
    b"lastProbeTime": TIME,
    b"lastHeartbeatTime": TIME,
    b"message": TEXT,
}
_MOUNTS: _Places = {b"volumeMounts": {b"name": ACCESS}}

_POD: _Places = {
    b"metadata": {**_METADATA, b"labels": _POD_LABELS},
    b"spec": {b"nodeName": NODE, b"volumes": {b"name": ACCESS}, b"containers": _MOUNTS, b"initContainers": _MOUNTS},
    b"status": {
        b"startTime": TIME,
        b"hostIP": ADDRESS,
        b"hostIPs": {b"ip": ADDRESS},
        b"podIP": ADDRESS,
        b"podIPs": {b"ip": ADDRESS},
        b"message": TEXT,
        b"conditions": _CONDITIONS,
        b"containerStatuses": _CONTAINER_STATUS,
        b"initContainerStatuses": _CONTAINER_STATUS,
    },
}
_NODE_PLACES: _Places = {
    b"metadata": {**_METADATA, b"labels": {b"kubernetes.io/hostname": LABEL, FOREIGN: LABEL}},
    b"spec": {b"podCIDR": NETWORK, b"podCIDRs": NETWORK, b"taints": {b"timeAdded": TIME}},
    b"status": {b"addresses": {b"address": TEXT}, b"conditions": _CONDITIONS},
}
_LABELED: _Places = {**_METADATA, b"labels": {ANY: LABEL}}
_SELECTOR: _Places = {b"matchLabels": {ANY: LABEL}, b"matchExpressions": {b"values": LABEL}}
"""It is compared with the labels of the template, so that the pattern tells whether it matches."""
_SCALED: _Places = {
    b"metadata": _LABELED,
    b"spec": {b"replicas": NUMBER, b"selector": _SELECTOR, b"template": {b"metadata": {b"labels": {ANY: LABEL}}}},
    b"status": {b"conditions": _CONDITIONS},
}
_PLAIN: _Places = {b"metadata": _METADATA}
_EVENT_METADATA: _Places = {**_METADATA, b"name": NAME}

_KINDS: dict[tuple[str, str], _Places] = {
    ("", "pods"): _POD,
    ("", "nodes"): _NODE_PLACES,
    ("", "configmaps"): {b"metadata": _LABELED, b"data": {ANY: TEXT}},
    ("apps", "deployments"): _SCALED,
    ("apps", "replicasets"): _SCALED,
    ("coordination.k8s.io", "leases"): {
        **_PLAIN,
        b"spec": {b"holderIdentity": TEXT, b"acquireTime": MICRO_TIME, b"renewTime": MICRO_TIME},
    },
}
"""By group and resource, as they are stored and sent."""


def _in_body(places: _Places) -> _Places:
    """The places in what a client sends of such an object: who manages which fields stays out of it."""
    metadata = {**places[b"metadata"], b"resourceVersion": VERSION, b"managedFields": NOTHING}
    return {**places, b"metadata": metadata}


def _event(about: bytes, text: bytes, *more: bytes) -> _Places:
    """An Event, whose groups have other names for what it is about and what it says."""
    object_: _Places = {b"name": TEXT, b"uid": UID, b"resourceVersion": VERSION}
    times: _Places = dict.fromkeys(more, TIME)
    return {b"metadata": _EVENT_METADATA, b"eventTime": MICRO_TIME, about: object_, text: TEXT, **times}


_EVENT = _event(b"involvedObject", b"message", b"firstTimestamp", b"lastTimestamp")

BODY_VERSION = "v1"
"""That of all bodies."""

STORED: dict[tuple[str, str], Place] = {
    **{kind: Place(places) for kind, places in _KINDS.items()},
    ("", "events"): Place(_EVENT),
    ("events.k8s.io", "events"): Place(_EVENT),
}
BODIES: dict[tuple[str, str], Place] = {
    **{kind: Place(_in_body(places)) for kind, places in _KINDS.items()},
    ("", "events"): Place(_in_body(_EVENT)),
    ("events.k8s.io", "events"): Place(_in_body(_event(b"regarding", b"note"))),
}

BINDING = Place(
    {
        b"metadata": {b"name": LABEL, b"uid": UID, b"resourceVersion": VERSION},
        b"target": {b"name": NODE},
    }
)
