"""What of auditing can be told: the flags of kube-apiserver, under the same names, checked in its words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fastkube.config import option

AUDIT_MODES = ("batch", "blocking", "blocking-strict")


class Batching(NamedTuple):
    """How events are gathered before they are handed on, in the mode `batch`."""

    queue_max: int
    batch_max: int
    wait_max_s: float
    throttled: bool
    per_s: float
    burst: int


class Truncation(NamedTuple):
    """Events larger than `event_max_bytes` lose their objects, or are dropped where that does not help."""

    enabled: bool
    event_max_bytes: int


@dataclass(frozen=True)
class AuditOptions:
    """The part of the server's options that is about auditing."""

    audit_policy_file: str = option("", "Audit policy; nothing is audited without one.", metavar="FILE")
    audit_log_path: str = option("", "File that gets audit events as JSON lines; -: standard output.", metavar="FILE")
    audit_log_mode: str = option("blocking", "When events are written: any of " + ", ".join(AUDIT_MODES) + ".")
    audit_log_maxsize: int = option(100, "Megabytes after which the audit log is rotated; 0: never.")
    audit_log_maxbackup: int = option(100, "Rotated audit logs to keep; 0: all.")
    audit_log_maxage: int = option(366, "Days to keep rotated audit logs; 0: for ever.")
    audit_log_compress: bool = option(False, "Compress rotated audit logs by gzip.")
    audit_log_batch_buffer_size: int = option(10_000, "Events that may wait to be written; more are dropped.")
    audit_log_batch_max_size: int = option(1, "Events written at once.")
    audit_log_batch_max_wait_s: float = option(0.0, "How long an event waits for others.")
    audit_log_batch_throttle_enable: bool = option(False, "Limit how many batches are written.")
    audit_log_batch_throttle_qps: float = option(0.0, "Batches written a second, at most.")
    audit_log_batch_throttle_burst: int = option(0, "Batches written at once after a time without.")
    audit_log_truncate_enabled: bool = option(False, "Take the objects off events that are too large.")
    audit_log_truncate_max_batch_size: int = option(10_485_760, "Bytes of a batch, before it is made of several.")
    audit_log_truncate_max_event_size: int = option(102_400, "Bytes of an event, before its objects are taken off.")
    audit_webhook_config_file: str = option("", "Kubeconfig of a webhook that takes audit events.", metavar="FILE")
    audit_webhook_mode: str = option("batch", "When events are sent: any of " + ", ".join(AUDIT_MODES) + ".")
    audit_webhook_batch_buffer_size: int = option(10_000, "Events that may wait; more are dropped.")
    audit_webhook_batch_max_size: int = option(400, "Events sent to it at once.")
    audit_webhook_batch_max_wait_s: float = option(30.0, "How long an event waits for others.")
    audit_webhook_batch_throttle_enable: bool = option(True, "Limit how many batches are sent.")
    audit_webhook_batch_throttle_qps: float = option(10.0, "Batches sent a second, at most.")
    audit_webhook_batch_throttle_burst: int = option(15, "Batches sent at once after a time without.")
    audit_webhook_truncate_enabled: bool = option(False, "Take the objects off events that are too large.")
    audit_webhook_truncate_max_batch_size: int = option(10_485_760, "Bytes of a batch, before it is made of several.")
    audit_webhook_truncate_max_event_size: int = option(102_400, "Bytes of an event, before its objects are taken off.")
    audit_webhook_initial_backoff_s: float = option(10.0, "Pause before the first attempt to send again.")

    def validate_audit(self) -> None:
        """Raises ValueError in upstream's words."""
        if self.audit_log_path:
            _validate("log", self.audit_log_mode, self.log_batching, self.log_truncation)
            _validate_sizes("log", self.log_truncation, self.audit_log_truncate_max_batch_size)
            for flag, number in (
                ("maxage", self.audit_log_maxage),
                ("maxbackup", self.audit_log_maxbackup),
                ("maxsize", self.audit_log_maxsize),
            ):
                if number < 0:
                    raise ValueError(f"--audit-log-{flag} {number} can't be a negative number")
        if self.audit_webhook_config_file:
            _validate("webhook", self.audit_webhook_mode, self.webhook_batching, self.webhook_truncation)
            _validate_sizes("webhook", self.webhook_truncation, self.audit_webhook_truncate_max_batch_size)

    @property
    def log_batching(self) -> Batching:
        return Batching(
            self.audit_log_batch_buffer_size,
            self.audit_log_batch_max_size,
            self.audit_log_batch_max_wait_s,
            self.audit_log_batch_throttle_enable,
            self.audit_log_batch_throttle_qps,
            self.audit_log_batch_throttle_burst,
        )

    @property
    def webhook_batching(self) -> Batching:
        return Batching(
            self.audit_webhook_batch_buffer_size,
            self.audit_webhook_batch_max_size,
            self.audit_webhook_batch_max_wait_s,
            self.audit_webhook_batch_throttle_enable,
            self.audit_webhook_batch_throttle_qps,
            self.audit_webhook_batch_throttle_burst,
        )

    @property
    def log_truncation(self) -> Truncation:
        return Truncation(self.audit_log_truncate_enabled, self.audit_log_truncate_max_event_size)

    @property
    def webhook_truncation(self) -> Truncation:
        return Truncation(self.audit_webhook_truncate_enabled, self.audit_webhook_truncate_max_event_size)


def _validate(what: str, mode: str, batching: Batching, truncation: Truncation) -> None:
    if mode not in AUDIT_MODES:
        raise ValueError(f'invalid audit {what} mode {mode}, allowed modes are "{",".join(AUDIT_MODES)}"')
    if mode != "batch":
        return
    checks = [("buffer size", batching.queue_max), ("max batch size", batching.batch_max)]
    if batching.throttled:
        checks += [("throttle QPS", batching.per_s), ("throttle burst", batching.burst)]  # type: ignore[list-item]
    for name, number in checks:
        if number <= 0:
            raise ValueError(f"invalid audit batch {what} {name} {number:g}, must be a positive number")


def _validate_sizes(what: str, truncation: Truncation, batch_max_bytes: int) -> None:
    if not truncation.enabled:
        return
    if truncation.event_max_bytes <= 0:
        told = f"invalid audit truncate {what} max event size {truncation.event_max_bytes}"
        raise ValueError(f"{told}, must be a positive number")
    if batch_max_bytes < truncation.event_max_bytes:
        told = f"invalid audit truncate {what} max batch size {batch_max_bytes}"
        raise ValueError(f"{told}, must be greater than max event size ({truncation.event_max_bytes})")
