"""Subresources that connect to a Pod, Node or Service: log, exec, attach, portforward and proxy.

They need a kubelet (or a network to Pods), which fastkube's simulated nodes do not have. What upstream finds wrong
before it would connect is answered as it is there; what would then be connected is refused by name, with 501.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgpack

from fastkube import errors
from fastkube.api import field
from fastkube.errors import ApiError, Cause
from fastkube.server.answer import Answer

if TYPE_CHECKING:
    from fastkube.registry.strategy import Call
    from fastkube.store import Store

Object = dict[str, Any]

CONNECTING = frozenset(("log", "exec", "attach", "portforward", "proxy"))

_LEAST = {
    "tailLines": (0, "must be greater than or equal to 0"),
    "limitBytes": (1, "must be greater than 0"),
    "sinceSeconds": (1, "must be greater than 0"),
}


def connect(store: Store, call: Call) -> Answer:
    """Raises 400, 404 and 422 as upstream does, and 501 where it would connect."""
    rtype = call.rtype
    if (rtype.group, rtype.resource) == ("", "services"):
        return _service_proxy(store, call)
    item = store.get(rtype.key(call.namespace, call.name.partition(":")[0]))
    if item is None:
        raise errors.not_found(rtype.group, rtype.resource, call.name)
    if rtype.resource != "pods":
        raise _unsupported(call)
    return _POD_CONNECTIONS[call.subresource](call, msgpack.unpackb(item.value))


def _unsupported(call: Call) -> ApiError:
    told = f"{call.rtype.resource}/{call.subresource} needs a kubelet, which simulated nodes do not have"
    return ApiError(501, "NotImplemented", told)


def _log(call: Call, pod: Object) -> Answer:
    causes = _log_causes(call.query)
    if causes:
        raise errors.invalid("", "PodLogOptions", call.name, causes)
    _check_container(call, pod)
    if not pod["spec"].get("nodeName"):
        return Answer(204, b"", b"")
    raise _unsupported(call)


def _log_causes(query: dict[str, str]) -> list[Cause]:
    causes: list[Cause] = []
    for name, (least, problem) in _LEAST.items():
        if name in query:
            try:
                number = int(query[name])
            except ValueError:
                shown = field.quote(query[name])
                raise errors.bad_request(f"strconv.ParseInt: parsing {shown}: invalid syntax") from None
            if number < least:
                causes.append(field.invalid(name, number, problem))
    if "sinceSeconds" in query and "sinceTime" in query:
        causes.append(field.forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    return causes


def _check_container(call: Call, pod: Object) -> None:
    """A Pod with several containers needs to be told which one, by request or annotation."""
    spec = pod["spec"]
    kinds = ("initContainers", "containers", "ephemeralContainers")
    known = [container["name"] for kind in kinds for container in spec.get(kind) or ()]
    annotations = pod["metadata"].get("annotations") or {}
    wanted = call.query.get("container") or annotations.get("kubectl.kubernetes.io/default-container") or ""
    if wanted:
        if wanted not in known:
            raise errors.bad_request(f"container {wanted} is not valid for pod {call.name}")
        return
    names = [container["name"] for container in spec["containers"]]
    if len(names) > 1:
        told = f"a container name must be specified for pod {call.name}, choose one of: [{' '.join(names)}]"
        raise errors.bad_request(told)


def _stream(call: Call, pod: Object) -> Answer:
    if call.subresource != "portforward":
        _check_container(call, pod)
    if not pod["spec"].get("nodeName"):
        raise errors.bad_request(f"pod {call.name} does not have a host assigned")
    raise _unsupported(call)


def _pod_proxy(call: Call, pod: Object) -> Answer:
    if not (pod.get("status") or {}).get("podIP"):
        raise errors.bad_request("address not allowed")
    raise _unsupported(call)


_POD_CONNECTIONS: dict[str, Callable[[Call, Object], Answer]] = {
    "log": _log,
    "exec": _stream,
    "attach": _stream,
    "portforward": _stream,
    "proxy": _pod_proxy,
}


def _service_proxy(store: Store, call: Call) -> Answer:
    """`name`, `name:port` or `scheme:name:port`; a Service nobody stands behind is not found, as upstream has it."""
    parts = call.name.split(":")
    name = parts[1] if len(parts) == 3 else parts[0]
    item = store.get(f"/registry/endpoints/{call.namespace}/{name}".encode())
    endpoints = msgpack.unpackb(item.value) if item is not None else None
    if store.get(call.rtype.key(call.namespace, name)) is None or endpoints is None:
        raise errors.not_found("", "services", name)
    if not any(subset.get("addresses") for subset in endpoints.get("subsets") or ()):
        raise errors.unavailable(f"no endpoints available for service {field.quote(name)}")
    raise _unsupported(call)
