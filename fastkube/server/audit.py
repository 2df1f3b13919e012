"""The audit log: what was asked by whom, and what came of it (audit.k8s.io/v1 Events, one for each stage).

    begin      after authentication   the policy is asked; RequestReceived
    started    a watch's head is out  ResponseStarted
    complete   the answer is out      ResponseComplete

Nothing of this runs without a policy and a place to write to.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import orjson

from fastkube.api import codec
from fastkube.clock import rfc3339_micro
from fastkube.errors import ApiError
from fastkube.registry.strategy import UserInfo
from fastkube.server.answer import GZIP_WBITS, Answer
from fastkube.server.audit_backends import LogFile, Webhook
from fastkube.server.audit_policy import LEVELS, Policy, Verdict
from fastkube.server.audit_sinks import AuditMeasures, Sink
from fastkube.server.calls import internal_error
from fastkube.server.outbound import Peer

if TYPE_CHECKING:
    from fastkube.clock import Clock
    from fastkube.server.answer import Streamed
    from fastkube.server.options import ServerOptions
    from fastkube.server.request import Request

Object = dict[str, Any]

_REQUEST, _RESPONSE = LEVELS.index("Request"), LEVELS.index("RequestResponse")
_CLOSE_GRACE_S = 2.0
_AGENT_MAX = 1024
_DECISION, _REASON = "authorization.k8s.io/decision", "authorization.k8s.io/reason"


class Record:
    """What is known of one audited request. `annotations` may be added to while it is under way."""

    __slots__ = ("annotations", "body", "event", "impersonated", "user", "verdict")

    def __init__(self, verdict: Verdict, event: Object, user: UserInfo) -> None:
        self.verdict = verdict
        self.event = event
        self.user = user
        self.impersonated: UserInfo | None = None
        self.body = b""
        self.annotations: dict[str, str] = {}


class Auditor:
    @classmethod
    def of(cls, options: ServerOptions, clock: Clock) -> Auditor | None:
        """None where nothing is to be audited. Raises ValueError and OSError for options that cannot be used."""
        if not options.audit_policy_file or not (options.audit_log_path or options.audit_webhook_config_file):
            return None
        policy, measures, sinks = Policy.load(options.audit_policy_file), AuditMeasures(), []
        if options.audit_log_path:
            file = LogFile(
                options.audit_log_path,
                clock,
                size_max_mb=options.audit_log_maxsize,
                backups_max=options.audit_log_maxbackup,
                age_max_days=options.audit_log_maxage,
                compress=options.audit_log_compress,
            )
            how = (options.audit_log_mode, options.log_batching, options.log_truncation)
            sinks.append(Sink(file, *how, measures, clock.monotonic))
        if options.audit_webhook_config_file:
            peer = Peer.of_kubeconfig(options.audit_webhook_config_file, clock)
            webhook = Webhook(peer, options.audit_webhook_initial_backoff_s)
            how = (options.audit_webhook_mode, options.webhook_batching, options.webhook_truncation)
            sinks.append(Sink(webhook, *how, measures, clock.monotonic))
        waits = bool(options.audit_webhook_config_file) and options.audit_webhook_mode != "batch"
        return cls(policy, clock, sinks, measures, waits)

    def __init__(
        self, policy: Policy, clock: Clock, sinks: list[Sink], measures: AuditMeasures, waits: bool = False
    ) -> None:
        """`waits`: one of the sinks has to be waited for."""
        self._policy = policy
        self._clock = clock
        self._sinks = sinks
        self.measures = measures
        self.waits = waits
        self._telling: set[asyncio.Task[bool]] = set()

    def begin(self, request: Request) -> Answer | Awaitable[Answer | None] | None:
        """Decides whether the request is audited (`request.audit`), and tells that it has come. Answers one that has to
        be audited and cannot."""
        verdict = self._policy.verdict(request.user, request.info)
        level = LEVELS[verdict.level]
        self.measures.levels[level] = self.measures.levels.get(level, 0) + 1
        if not verdict.level:
            return None
        request.audit = Record(verdict, self._event(request, verdict, _user(request.user)), request.user)
        taken = self._emit(request.audit, "RequestReceived", {}, strict=True)
        if isinstance(taken, bool):
            return None if taken else self._reject(request)
        return self._begun(request, taken)

    async def _begun(self, request: Request, taken: Awaitable[bool]) -> Answer | None:
        return None if await taken else self._reject(request)

    def _reject(self, request: Request) -> Answer:
        self.measures.rejected += 1
        return internal_error(request.info.path, "failed to store audit event")

    def _event(self, request: Request, verdict: Verdict, user: Object) -> Object:
        """What all events of a request have in common."""
        now = self._now()
        event: Object = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": LEVELS[verdict.level],
            "auditID": request.audit_id,
            "stage": "RequestReceived",
            "requestURI": request.head.path,
            "verb": request.info.verb,
            "user": user,
            "sourceIPs": _sources(request),
            "requestReceivedTimestamp": now,
            "stageTimestamp": now,
        }
        agent = request.headers.get("User-Agent", "")
        if agent:
            event["userAgent"] = agent if len(agent) <= _AGENT_MAX else agent[:_AGENT_MAX] + "...TRUNCATED"
        if request.info.is_resource:
            event["objectRef"] = _reference(request)
        return event

    def started(self, request: Request, code: int) -> None:
        """The head of a long answer is written."""
        record = request.audit
        if record is not None:
            status = {"responseStatus": {"metadata": {}, "code": code}}
            taken = self._emit(record, "ResponseStarted", {**self._more(request, record), **status})
            if not isinstance(taken, bool):  # the stream goes on meanwhile
                task = asyncio.ensure_future(taken)
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

    def complete(self, request: Request, answer: Answer | Streamed) -> Awaitable[bool] | bool:
        """To be awaited before the answer is written, where a sink has to be."""
        record = request.audit
        if record is None:
            if answer.code == 401 and hasattr(request, "info"):
                return self._refused(request)
            return True
        more = self._more(request, record)
        answered = _answered(answer)
        more["responseStatus"] = _status(answered, answer.code)
        if record.verdict.level >= _RESPONSE and answered is not None:
            more["responseObject"] = _without_managers(answered) if record.verdict.omit_managed_fields else answered
        return self._emit(record, "ResponseComplete", more)

    def _refused(self, request: Request) -> Awaitable[bool] | bool:
        """Whoever could not prove who they are is nobody."""
        verdict = self._policy.verdict(UserInfo(""), request.info)
        if not verdict.level:
            return True
        method = "bearer" if request.headers.get("Authorization") else "x509"
        status = {"metadata": {}, "status": "Failure", "message": f"Authentication failed, attempted: {method}"}
        event = self._event(request, verdict, {})
        more = {"responseStatus": {**status, "code": 401}}
        return self._emit(Record(verdict, event, UserInfo("")), "ResponseStarted", more)

    def _more(self, request: Request, record: Record) -> Object:
        """What is known once the request was admitted: who was impersonated, the object sent, annotations."""
        more: Object = {"stageTimestamp": self._now()}
        if request.user is not record.user:
            more["impersonatedUser"] = _user(request.user)
        sent = _sent(request, record) if record.body else None
        if sent is not None:
            if "objectRef" in record.event and request.info.verb != "patch":
                more["objectRef"] = _completed(record.event["objectRef"], sent)
            if record.verdict.level >= _REQUEST:
                more["requestObject"] = _without_managers(sent) if record.verdict.omit_managed_fields else sent
        if record.annotations:
            more["annotations"] = dict(record.annotations)
        return more

    def _emit(self, record: Record, stage: str, more: Object, strict: bool = False) -> Awaitable[bool] | bool:
        """False where an event is lost that must not be: only with `strict`."""
        if stage in record.verdict.omitted:
            return True
        event = {**record.event, "stage": stage, **more}
        self.measures.events += 1
        taken, waiting = True, []
        for sink in self._sinks:
            outcome = sink.send(event)
            must = strict and sink.strict
            if not isinstance(outcome, bool):
                waiting.append((outcome, must))
            elif must:
                taken = taken and outcome
        return _all_taken(taken, waiting) if waiting else taken

    def _now(self) -> str:
        return rfc3339_micro(self._clock.time())

    async def close(self) -> None:
        for sink in self._sinks:
            await sink.close(_CLOSE_GRACE_S)


async def _all_taken(taken: bool, waiting: list[tuple[Awaitable[bool], bool]]) -> bool:
    for outcome, must in waiting:
        success = await outcome
        taken = taken and (success or not must)
    return taken


def tell_decision(record: Record, allowed: bool, reason: str) -> None:
    """The annotations of authorization."""
    record.annotations[_DECISION] = "allow" if allowed else "forbid"
    record.annotations[_REASON] = reason


def _user(user: UserInfo) -> Object:
    told: Object = {"username": user.name}
    if user.uid:
        told["uid"] = user.uid
    if user.groups:
        told["groups"] = list(user.groups)
    if user.extra:
        told["extra"] = user.extra
    return told


def _sources(request: Request) -> list[str]:
    """Where the request comes from: what proxies say, then the peer itself."""
    headers = request.headers
    found = [part.strip() for part in headers.get("X-Forwarded-For", "").split(",") if part.strip()]
    if headers.get("X-Real-Ip") and headers["X-Real-Ip"] not in found:
        found.append(headers["X-Real-Ip"])
    transport = request.connection.transport
    peer = transport.get_extra_info("peername") if transport is not None else None
    if isinstance(peer, tuple) and peer[0] not in found[-1:]:
        found.append(peer[0])
    return found


def _reference(request: Request) -> Object:
    info = request.info
    told = {
        "resource": info.resource,
        "namespace": info.namespace,
        "name": info.name,
        "apiGroup": info.group,
        "apiVersion": info.version,
        "subresource": info.subresource,
    }
    return {key: value for key, value in told.items() if value}


def _completed(reference: Object, sent: Object) -> Object:
    """The reference with what the object itself says."""
    metadata = sent.get("metadata")
    if not isinstance(metadata, dict):
        return reference
    own = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion") if metadata.get(key)}
    return {**own, **reference}


def _sent(request: Request, record: Record) -> Object | None:
    """The body as JSON; None for what is no object."""
    media = request.headers.get("Content-Type", "")
    try:
        if media.startswith("application/apply-patch"):
            media = codec.YAML
        elif "patch+json" in media:
            return codec.decode_patch(record.body)[0]  # type: ignore[no-any-return]
        return codec.decode(record.body, media)
    except (ApiError, ValueError):
        return None


def _answered(answer: Answer | Streamed) -> Object | None:
    """The object that was answered; None for a stream and what is no object."""
    if not isinstance(answer, Answer) or not answer.body:
        return None
    body = answer.body
    if b"Content-Encoding: gzip" in answer.headers:
        body = zlib.decompress(body, GZIP_WBITS)
    media = answer.media.decode()
    if media.startswith("application/json"):
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        return value if isinstance(value, dict) else None
    try:
        return codec.decode(body, media)
    except ApiError:
        return None


def _status(answered: Object | None, code: int) -> Object:
    """A Status that was answered, else only its code."""
    if answered is None or answered.get("kind") != "Status":
        return {"metadata": {}, "code": code}
    told: Object = {key: answered[key] for key in ("status", "message", "reason", "details") if key in answered}
    return {"metadata": {}, **told, "code": code}


def _without_managers(obj: Object) -> Object:
    """The object, or each of a list's, without managedFields."""
    if isinstance(obj.get("items"), list):
        return {**obj, "items": [_without_managers(item) if isinstance(item, dict) else item for item in obj["items"]]}
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or "managedFields" not in metadata:
        return obj
    return {**obj, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}
