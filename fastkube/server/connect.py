"""Subresources that connect to a Pod, Node or Service: log, exec, attach, portforward and proxy.

What upstream finds wrong before it would connect is answered here; the rest goes to the node's kubelet (kubelet.py)
or, for the proxies, to the address of the Pod or of one of the Service's endpoints.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgpack

from fastkube import errors
from fastkube.api import field
from fastkube.client.transport import tls_context
from fastkube.errors import ApiError, Cause
from fastkube.server.answer import Answer, Streamed
from fastkube.server.kubelet import log_target, stream_target, to_kubelet
from fastkube.server.proxy import Backend, proxy

if TYPE_CHECKING:
    from fastkube.registry.strategy import Call
    from fastkube.server.app import ApiServer
    from fastkube.server.request import Request

Object = dict[str, Any]
Result = Answer | Awaitable[Answer | Streamed]

CONNECTING = frozenset(("log", "exec", "attach", "portforward", "proxy"))

_FLAGS = ("stdin", "stdout", "stderr", "tty")

_LEAST = {
    "tailLines": (0, "must be greater than or equal to 0"),
    "limitBytes": (1, "must be greater than 0"),
    "sinceSeconds": (1, "must be greater than 0"),
}


def options_of(call: Call, query_text: str) -> Object | None:
    """What admission sees of a connection: the options in its query. Reading a log is no connection."""
    info = call.rtype.subresources[call.subresource]
    if not info.kind.endswith("Options"):
        return None
    query = parse_qs(query_text, keep_blank_values=True)
    made: Object = {"kind": info.kind, "apiVersion": call.rtype.api_version(call.version)}
    made |= {flag: True for flag in _FLAGS if query.get(flag, ["false"])[0].lower() not in ("false", "0")}
    made |= {key: query[key][0] for key in ("container", "path") if query.get(key)}
    if "command" in query:
        made["command"] = query["command"]
    if "ports" in query:
        made["ports"] = [int(port) for ports in query["ports"] for port in ports.split(",") if port.isdigit()]
    return made


def connect(server: ApiServer, request: Request, call: Call) -> Result:
    """Raises 400, 404 and 422 as upstream does, and 500 or 503 for whoever cannot be reached."""
    rtype = call.rtype
    if (rtype.group, rtype.resource) == ("", "services"):
        return _service_proxy(server, request, call)
    name = _split_name(call.name)[1]
    item = server.store.get(rtype.key(call.namespace, name))
    if item is None:
        raise errors.not_found(rtype.group, rtype.resource, name)
    if rtype.resource == "nodes":
        return to_kubelet(server, request, name, _rest(request, namespaced=False))
    return _POD_CONNECTIONS[call.subresource](server, request, call, msgpack.unpackb(item.value))


def _log(server: ApiServer, request: Request, call: Call, pod: Object) -> Result:
    causes = _log_causes(call.query)
    if causes:
        raise errors.invalid("", "PodLogOptions", call.name, causes)
    container = _container(call, pod)
    node = pod["spec"].get("nodeName")
    if not node:
        return Answer(204, b"", b"")
    return to_kubelet(server, request, node, log_target(pod, container, call.query))


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


def _container(call: Call, pod: Object) -> str:
    """Which container is meant: a Pod with several needs to be told, by request or annotation."""
    spec = pod["spec"]
    kinds = ("initContainers", "containers", "ephemeralContainers")
    known = [container["name"] for kind in kinds for container in spec.get(kind) or ()]
    annotations = pod["metadata"].get("annotations") or {}
    wanted: str = call.query.get("container") or annotations.get("kubectl.kubernetes.io/default-container") or ""
    if wanted:
        if wanted not in known:
            raise errors.bad_request(f"container {wanted} is not valid for pod {call.name}")
        return wanted
    names: list[str] = [container["name"] for container in spec["containers"]]
    if len(names) > 1:
        told = f"a container name must be specified for pod {call.name}, choose one of: [{' '.join(names)}]"
        raise errors.bad_request(told)
    return names[0]


def _stream(server: ApiServer, request: Request, call: Call, pod: Object) -> Result:
    container = "" if call.subresource == "portforward" else _container(call, pod)
    node = pod["spec"].get("nodeName")
    if not node:
        raise errors.bad_request(f"pod {call.name} does not have a host assigned")
    what = "portForward" if call.subresource == "portforward" else call.subresource
    return to_kubelet(server, request, node, stream_target(what, pod, container, request.query_text, call.query))


# ---------------------------------------------------------------- proxies


def _split_name(name: str) -> tuple[str, str, str]:
    """(scheme, name, port) of `name`, `name:port` or `scheme:name:port`; scheme and port may be empty."""
    parts = name.split(":")
    if len(parts) == 3:
        return parts[0], parts[1], parts[2]
    return "", parts[0], parts[1] if len(parts) == 2 else ""


def _pod_proxy(server: ApiServer, request: Request, call: Call, pod: Object) -> Result:
    scheme, name, port = _split_name(call.name)
    address = (pod.get("status") or {}).get("podIP")
    if not address:
        raise errors.bad_request("address not allowed")
    if not port:
        ports = [
            one["containerPort"] for container in pod["spec"]["containers"] for one in container.get("ports") or ()
        ]
        port = str(ports[0]) if ports else ""
    return _forward(server, request, scheme, address, port, name)


def _service_proxy(server: ApiServer, request: Request, call: Call) -> Result:
    """A Service nobody stands behind is not found, as upstream has it."""
    scheme, name, port = _split_name(call.name)
    service = server.store.get(call.rtype.key(call.namespace, name))
    item = server.store.get(f"/registry/endpoints/{call.namespace}/{name}".encode())
    if service is None or item is None:
        raise errors.not_found("", "services", name)
    wanted = _port_name(msgpack.unpackb(service.value), port)
    for subset in msgpack.unpackb(item.value).get("subsets") or ():
        for each in subset.get("ports") or ():
            if subset.get("addresses") and (wanted is None or (each.get("name") or "") == wanted):
                address = random.choice(subset["addresses"])["ip"]
                return _forward(server, request, scheme, address, str(each["port"]), name)
    raise errors.unavailable(f"no endpoints available for service {field.quote(name)}")


def _port_name(service: Object, port: str) -> str | None:
    """The name of the Service's port that is asked for by name or number; None: any."""
    if not port:
        return None
    for each in service["spec"].get("ports") or ():
        if port in (each.get("name"), str(each["port"])):
            return each.get("name") or ""
    name = field.quote(service["metadata"]["name"])
    raise errors.unavailable(f"no service port {field.quote(port)} found for service {name}")


def _forward(server: ApiServer, request: Request, scheme: str, host: str, port: str, name: str) -> Result:
    rest = _rest(request, namespaced=True)
    if not rest.startswith("/"):
        path, question, query = request.head.path.partition("?")
        return Answer(301, b"", b"", f"Location: {path}/{question}{query}\r\n".encode())
    context = None
    if scheme == "https":  # as upstream: whoever stands behind a Pod or Service is not verified
        context = tls_context(verified=False)
    number = int(port) if port.isdigit() else 443 if scheme == "https" else 80

    def unreachable(problem: str) -> ApiError:
        return errors.unavailable(f"error trying to reach service: {problem}")

    return proxy(server, request, Backend(host, number, context), rest, unreachable=unreachable)


def _rest(request: Request, *, namespaced: bool) -> str:
    """What follows `/proxy` in the request's target, as it was sent."""
    parts = request.head.path.split("/", 8 if namespaced else 6)
    tail = parts[8 if namespaced else 6 :]
    if tail:
        return "/" + tail[0]
    _, question, query = parts[-1].partition("?")
    return question + query


_POD_CONNECTIONS: dict[str, Callable[[ApiServer, Request, Call, Object], Result]] = {
    "log": _log,
    "exec": _stream,
    "attach": _stream,
    "portforward": _stream,
    "proxy": _pod_proxy,
}
