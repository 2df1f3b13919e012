"""The kubelet's own API, for all simulated nodes on one port of this machine: logs, exec, attach, usage.

    GET /containerLogs/NAMESPACE/POD/CONTAINER     /exec/... and /attach/... (WebSocket: v5 and v4.channel.k8s.io)
    GET /stats/summary  /metrics/resource  /pods  /healthz         of the node that the Host header names
    GET /apis/metrics.k8s.io/...                                   of all nodes (metrics.py)

A node's InternalDNS address is NAME.localhost, so that every request says which node it means. Nothing is set up until
somebody connects: a fleet whose logs nobody reads pays for a listening socket only. TLS is self-signed, as a kubelet's
is that nobody has issued a certificate to; what is served is made up (answers.py) and needs no credentials.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import socket
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastkube.client import Client
from fastkube.clock import Clock, parse_rfc3339, rfc3339
from fastkube.errors import ApiError
from fastkube.nodes import answers, status
from fastkube.nodes.answers import LogLine, Output
from fastkube.nodes.metrics import ResourceMetrics, running

if TYPE_CHECKING:
    from aiohttp import web

log = logging.getLogger(__name__)
Object = dict[str, Any]

FOLLOW_INTERVAL_S = 1.0
"""How often a followed log is looked at again."""

_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN_MAX_BYTES = 1024 * 1024


class Kubelet:
    """`port` is known at once; `close` ends everything. `uptime_s` tells how long this has run."""

    def __init__(self, client: Client, clock: Clock, port: int = 0) -> None:
        self._client = client
        self._clock = clock
        self._socket = _listen(port)
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._first)
        self._opening: asyncio.Task[None] | None = None
        self._runner: web.ServerRunner | None = None
        self._routes: dict[str, Callable[[web.BaseRequest, list[str]], Any]] = {
            "containerLogs": self._logs,
            "exec": self._exec,
            "attach": self._attach,
            "portForward": self._refuse_forwarding,
            "stats": self._summary,
            "metrics": self._metrics,
            "pods": self._pods,
            "healthz": self._healthz,
            "apis": self._resource_metrics,
        }
        self.metrics = ResourceMetrics(client, clock)

    async def close(self) -> None:
        if self._opening is None:
            self._loop.remove_reader(self._socket)
        else:
            self._opening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._opening
        if self._runner is not None:
            await self._runner.cleanup()
        self._socket.close()

    def _first(self) -> None:
        """Somebody connects: now the server is made, and takes over the socket."""
        self._loop.remove_reader(self._socket)
        self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        from aiohttp import web

        context = await asyncio.to_thread(_self_signed)
        runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        self._runner = runner
        await web.SockSite(runner, self._socket, ssl_context=context).start()

    # -- requests ----------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        from aiohttp import web

        parts = request.path.strip("/").split("/")
        route = self._routes.get(parts[0])
        if route is None:
            return web.Response(status=404, text="404 page not found\n")
        try:
            answer: web.StreamResponse = await route(request, parts[1:])
            return answer
        except ApiError as error:
            return web.Response(status=error.code, text=error.message)
        except ConnectionError:  # the client has gone
            return web.Response()

    async def _pod(self, parts: list[str]) -> tuple[Object, str]:
        """The Pod and the container that a path names; raises 404 as the kubelet words it."""
        if len(parts) < 3:
            raise ApiError(404, "NotFound", "404 page not found")
        namespace, name, container = parts[:3]
        pod = await self._client.get("v1/pods", name, namespace)
        if answers.container_status(pod, container) is None:
            told = f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating'
            raise ApiError(400, "BadRequest", told)
        return pod, container

    async def _healthz(self, request: web.BaseRequest, parts: list[str]) -> web.Response:
        from aiohttp import web

        return web.Response(text="ok")

    async def _refuse_forwarding(self, request: web.BaseRequest, parts: list[str]) -> web.Response:
        from aiohttp import web

        # without a colon: kubectl takes what parses as a YAML mapping for a Status, and shows its empty message
        return web.Response(status=501, text="nothing listens in a simulated Pod, so there is no port to forward\n")

    # -- logs --------------------------------------------------------------------------------------------------------

    async def _logs(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        from aiohttp import web

        query = request.query
        pod, container = await self._pod(parts)
        if query.get("previous") == "true":
            name = pod["metadata"]["name"]
            raise ApiError(400, "BadRequest", f'previous terminated container "{container}" in pod "{name}" not found')
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        lines = answers.log_of(pod, container)
        await response.write(_log_text(self._since(lines, query), query))
        while query.get("follow") == "true" and await self._goes_on(pod, container):
            await asyncio.sleep(FOLLOW_INTERVAL_S)
            with contextlib.suppress(ApiError):
                pod, _ = await self._pod(parts)
            more = answers.log_of(pod, container)[len(lines) :]
            lines += more
            await response.write(_log_text(more, {"timestamps": query.get("timestamps", "")}))
        await response.write_eof()
        return response

    def _since(self, lines: list[LogLine], query: Any) -> list[LogLine]:
        if query.get("sinceTime"):
            oldest = parse_rfc3339(query["sinceTime"])
        elif query.get("sinceSeconds"):
            oldest = self._clock.time() - int(query["sinceSeconds"])
        else:
            return lines
        return [line for line in lines if parse_rfc3339(line.time) >= oldest]

    async def _goes_on(self, pod: Object, container: str) -> bool:
        """Whether the container still runs, as far as the API server knows."""
        metadata = pod["metadata"]
        try:
            now = await self._client.get("v1/pods", metadata["name"], metadata["namespace"])
        except ApiError:
            return False
        state = (answers.container_status(now, container) or {}).get("state") or {}
        return now["metadata"]["uid"] == metadata["uid"] and "running" in state

    # -- commands ----------------------------------------------------------------------------------------------------

    async def _exec(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        pod, container = await self._pod(parts)
        command = request.query.getall("command", [])

        async def work(session: _Session) -> Output:
            if command[:1] and command[0] in answers.SHELLS and "-c" not in command and session.reads:
                return await session.shell(lambda line: answers.run(pod, container, ["sh", "-c", line]))
            stdin = await session.rest() if session.reads and not session.tty else ""
            return answers.run(pod, container, command, stdin)

        return await _Session.serve(request, work)

    async def _attach(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        pod, container = await self._pod(parts)

        async def work(session: _Session) -> Output:
            await session.write(_STDOUT, _log_text(answers.log_of(pod, container), {}))
            if session.reads:  # a container that reads is taken for a shell, with which it ends
                output = await session.shell(lambda line: answers.run(pod, container, ["sh", "-c", line]))
                if pod["spec"].get("restartPolicy") != "Always":
                    await self._end(pod, output.code)
                return output
            while await self._goes_on(pod, container):
                if await session.gone(FOLLOW_INTERVAL_S):
                    break
            return Output()

        return await _Session.serve(request, work)

    async def _end(self, pod: Object, code: int) -> None:
        metadata = pod["metadata"]
        ended = status.ended(pod, rfc3339(self._clock.time()), code != 0)
        body = {"metadata": {"uid": metadata["uid"]}, "status": ended}
        with contextlib.suppress(ApiError):  # it is gone already
            await self._client.patch(
                "v1/pods", metadata["name"], body, metadata["namespace"], kind="strategic", subresource="status"
            )

    # -- usage -------------------------------------------------------------------------------------------------------

    async def _pods_of(self, request: web.BaseRequest) -> tuple[str, list[Object]]:
        """The node that the request means, and its Pods."""
        node = (request.host or "").partition(":")[0].removesuffix(".localhost")
        found = await self._client.list("v1/pods", field_selector=f"spec.nodeName={node}")
        return node, found["items"]

    async def _pods(self, request: web.BaseRequest, parts: list[str]) -> web.Response:
        from aiohttp import web

        _, pods = await self._pods_of(request)
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods})

    async def _summary(self, request: web.BaseRequest, parts: list[str]) -> web.Response:
        from aiohttp import web

        node, pods = await self._pods_of(request)
        now = rfc3339(self._clock.time())
        return web.json_response(_stats_summary(node, pods, now))

    async def _resource_metrics(self, request: web.BaseRequest, parts: list[str]) -> web.Response:
        from aiohttp import web

        try:
            return web.json_response(await self.metrics.answer(request.path.strip("/"), request.query))
        except ApiError as error:
            return web.json_response(error.to_status(), status=error.code)

    async def _metrics(self, request: web.BaseRequest, parts: list[str]) -> web.Response:
        from aiohttp import web

        if parts != ["resource"]:
            return web.Response(status=404, text="404 page not found\n")
        _, pods = await self._pods_of(request)
        return web.Response(text=_resource_metrics(pods), content_type="text/plain")


def _listen(port: int) -> socket.socket:
    """The port that is wanted, or any when it is taken."""
    for wanted in dict.fromkeys((port, 0)):
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", wanted))
            listening.listen(128)
            listening.setblocking(False)
            return listening
        except OSError:
            listening.close()
            if not wanted:
                raise
    raise AssertionError("unreachable")


def _self_signed() -> ssl.SSLContext:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "simulated-kubelet")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("*.localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:  # ssl reads keys from files only
        path = Path(folder) / "kubelet.pem"
        path.write_bytes(private + certificate.public_bytes(encoding))
        context.load_cert_chain(path)
    return context


def _log_text(lines: list[LogLine], query: Any) -> bytes:
    if query.get("tailLines"):
        count = int(query["tailLines"])
        lines = lines[-count:] if count else []
    stamp = query.get("timestamps") == "true"
    text = "".join(f"{line.time} {line.text}\n" if stamp else f"{line.text}\n" for line in lines).encode()
    return text[: int(query["limitBytes"])] if query.get("limitBytes") else text


def _stats_summary(node: str, pods: list[Object], now: str) -> Object:
    """The part of the kubelet's summary that resource metrics are made of."""
    stats, cpu, memory = [], 0, 0
    for pod in pods:
        containers = []
        for name, usage in running(pod):
            cpu, memory = cpu + usage.cpu, memory + usage.memory
            figures = {"cpu": _cpu(now, usage.cpu), "memory": _memory(now, usage.memory)}
            containers.append({"name": name, "startTime": pod["metadata"]["creationTimestamp"], **figures})
        names = {key: pod["metadata"][key] for key in ("name", "namespace", "uid")}
        stats.append({"podRef": names, "startTime": pod["metadata"]["creationTimestamp"], "containers": containers})
    whole = {"nodeName": node, "cpu": _cpu(now, cpu), "memory": _memory(now, memory)}
    return {"node": whole, "pods": stats}


def _cpu(now: str, nanocores: int) -> Object:
    return {"time": now, "usageNanoCores": nanocores}


def _memory(now: str, used: int) -> Object:
    return {"time": now, "workingSetBytes": used}


def _resource_metrics(pods: list[Object]) -> str:
    lines = ["# TYPE container_memory_working_set_bytes gauge"]
    for pod in pods:
        metadata = pod["metadata"]
        for name, usage in running(pod):
            labels = f'container="{name}",namespace="{metadata["namespace"]}",pod="{metadata["name"]}"'
            lines.append(f"container_memory_working_set_bytes{{{labels}}} {usage.memory}")
    return "\n".join(lines) + "\n"


class _Session:
    """One exec or attach over WebSocket: numbered channels, as client-go's remotecommand has them."""

    def __init__(self, request: web.BaseRequest, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        asked = request.query
        self.reads = asked.get("input") == "1"
        self.tty = asked.get("tty") == "1"
        self._errors = asked.get("error") == "1" and not self.tty

    @classmethod
    async def serve(cls, request: web.BaseRequest, work: Callable[[_Session], Any]) -> web.StreamResponse:
        """Runs `work`, then sends its output and how it ended."""
        from aiohttp import web

        socket = web.WebSocketResponse(protocols=_PROTOCOLS, compress=False, timeout=1.0)
        if not socket.can_prepare(request):
            return web.Response(status=403, text="simulated nodes stream over WebSocket only (v4 or v5.channel.k8s.io)")
        await socket.prepare(request)
        session = cls(request, socket)
        output: Output = await work(session)
        with contextlib.suppress(ConnectionError):
            await session.write(_STDOUT, output.stdout.encode())
            await session.write(_STDERR if session._errors else _STDOUT, output.stderr.encode())
            await session.write(_ERROR, json.dumps(_ending(output.code)).encode())
            await socket.close()
        return socket

    async def gone(self, seconds: float) -> bool:
        """Whether the client ends the session within this time; what it sends is dropped."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._socket.receive()
        return self._socket.closed

    async def write(self, channel: int, data: bytes) -> None:
        if data and not self._socket.closed:
            if self.tty and channel in (_STDOUT, _STDERR):
                data = data.replace(b"\n", b"\r\n")
            await self._socket.send_bytes(bytes((channel,)) + data)

    async def _input(self) -> bytes | None:
        """The next piece of standard input; None at its end."""
        from aiohttp import WSMsgType

        async for message in self._socket:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel == _STDIN and data:
                piece: bytes = data
                return piece
            if channel == _CLOSE and data == bytes((_STDIN,)):
                return None
        return None

    async def rest(self) -> str:
        """All of standard input."""
        whole = b""
        while len(whole) < _STDIN_MAX_BYTES and (piece := await self._input()) is not None:
            whole += piece
        return whole.decode(errors="replace")

    async def shell(self, run: Callable[[str], Output]) -> Output:
        """Lines of input, each run as it comes, until `exit` or the end; a terminal sees a prompt and what it types."""
        code, waiting = 0, b""
        await self._prompt()
        while (piece := await self._input()) is not None:
            if self.tty:
                await self.write(_STDOUT, piece.replace(b"\r", b"\n").replace(b"\x04", b""))
            waiting += piece.replace(b"\r", b"\n")
            while b"\n" in waiting:
                line, _, waiting = waiting.partition(b"\n")
                text = line.decode(errors="replace").strip()
                if text.split()[:1] == ["exit"]:
                    return run(text)._replace(stdout="", stderr="")
                out = run(text)
                code = out.code if text else code
                await self.write(_STDOUT, out.stdout.encode())
                await self.write(_STDERR if self._errors else _STDOUT, out.stderr.encode())
                await self._prompt()
            if waiting == b"\x04":  # Ctrl-D
                break
        return Output(code=code)

    async def _prompt(self) -> None:
        if self.tty:
            await self.write(_STDOUT, b"# ")


def _ending(code: int) -> Object:
    """How a command ended, as a Status."""
    if not code:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
