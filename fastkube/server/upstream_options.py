"""Flags of kube-apiserver that leave no choice here: each is taken where its value asks for what this server does in
any case, and refused with the reason where it asks for something else. None is passed over in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastkube.config import option, options_of


@dataclass(frozen=True)
class UpstreamOptions:
    """`validate` raises ValueError for a value that asks for what there is not."""

    allow_metric_labels: tuple[str, ...] = option((), "None: labels of metrics are bounded by the server itself.")
    allow_metric_labels_manifest: str = option("", "None, as of --allow-metric-labels.", metavar="FILE")
    allow_privileged: bool = option(True, "true: who may run privileged Pods is said by PodSecurity and policies.")
    audit_log_format: str = option("json", "json.")
    audit_log_version: str = option("audit.k8s.io/v1", "audit.k8s.io/v1.")
    audit_webhook_version: str = option("audit.k8s.io/v1", "audit.k8s.io/v1.")
    authorization_policy_file: str = option("", "None: the mode ABAC is not served.", metavar="FILE")
    contention_profiling: bool = option(False, "false: one thread serves, and nothing contends.")
    coordinated_leadership_lease_duration_s: float = option(15.0, "Any: for a feature gate that is off.")
    coordinated_leadership_renew_deadline_s: float = option(10.0, "Any: for a feature gate that is off.")
    coordinated_leadership_retry_period_s: float = option(2.0, "Any: for a feature gate that is off.")
    cors_allowed_origins: tuple[str, ...] = option((), "None: pages of other origins are not let in.")
    debug_socket_path: str = option("", "None: profiles are taken at /debug/pprof, by whoever may.", metavar="FILE")
    delete_collection_workers: int = option(1, "Any: collections are deleted many objects at once.")
    disable_http2_serving: bool = option(False, "Any: HTTP/1.1 is served.")
    egress_selector_config_file: str = option("", "None: connections are made directly.", metavar="FILE")
    emulated_version: tuple[str, ...] = option((), "1.36, which is what is served.")
    emulation_forward_compatible: bool = option(False, "false: no version is emulated.")
    enable_aggregator_routing: bool = option(True, "Any: requests go to the endpoints of a Service.")
    enable_garbage_collector: bool = option(True, "true: owners and finalizers are always looked at.")
    enable_logs_handler: bool = option(False, "false: /logs is not served.")
    etcd_count_metric_poll_period_s: float = option(60.0, "Any: objects are counted when metrics are read.")
    etcd_db_metric_poll_interval_s: float = option(30.0, "Any: sizes are looked up when metrics are read.")
    etcd_healthcheck_timeout_s: float = option(2.0, "Any: the store's health is known at any time.")
    etcd_readycheck_timeout_s: float = option(2.0, "Any: the store's health is known at any time.")
    etcd_servers_overrides: tuple[str, ...] = option((), "None: all is kept in one store.")
    goaway_chance: float = option(0.0, "0 to 0.02: for HTTP/2, as upstream's, and HTTP/1.1 is served.")
    http2_max_streams_per_connection: int = option(0, "Any: HTTP/1.1 is served.")
    lease_reuse_duration_seconds: int = option(60, "60: leases are shared for a minute.")
    livez_grace_period_s: float = option(0.0, "Any: all is live before the port is open.")
    log_flush_frequency_s: float = option(5.0, "Any: logs are written at once.")
    log_json_info_buffer_size: str = option("0", "0: logs are written at once.")
    log_json_split_stream: bool = option(False, "false: logs go to standard error.")
    log_text_info_buffer_size: str = option("0", "0: logs are written at once.")
    log_text_split_stream: bool = option(False, "false: logs go to standard error.")
    logging_format: str = option("text", "text.")
    max_connection_bytes_per_sec: int = option(0, "0: connections are not slowed down.")
    min_compatibility_version: tuple[str, ...] = option((), "1.33 to 1.36: no older component is needed.")
    peer_advertise_ip: str = option("", "None: all servers of a store are of one version.")
    peer_advertise_port: str = option("", "None: all servers of a store are of one version.")
    peer_ca_file: str = option("", "None: all servers of a store are of one version.", metavar="FILE")
    permit_address_sharing: bool = option(True, "Any: SO_REUSEADDR is always set.")
    runtime_config_emulation_forward_compatible: bool = option(False, "false: no version is emulated.")
    service_account_signing_endpoint: str = option(
        "", "None: tokens are signed with --service-account-signing-key-file."
    )
    show_hidden_metrics_for_version: str = option("", "1.35: no metric is hidden.")
    shutdown_watch_termination_grace_period_s: float = option(0.0, "Any: watches end at once, with all their events.")
    storage_backend: str = option("etcd3", "etcd3, whose semantics the store has.")
    storage_initialization_timeout_s: float = option(60.0, "Any: the store is ready before the port is open.")
    strict_transport_security_directives: tuple[str, ...] = option((), "None: no HSTS header is sent.")
    tls_curve_preferences: tuple[str, ...] = option((), "None: OpenSSL's own preferences hold.")
    tracing_config_file: str = option("", "None: no traces are exported.", metavar="FILE")
    vmodule: tuple[str, ...] = option((), "None: modules are not logged one by one.")
    watch_cache: bool = option(True, "Any: reads and watches are the store's own, without a cache.")
    watch_cache_sizes: tuple[str, ...] = option((), "Any: there is no cache to be sized.")

    def validate(self) -> None:
        for entry in options_of(UpstreamOptions):
            value, rule = getattr(self, entry.field), _RULES.get(entry.field)
            if value == entry.default or entry.help.startswith("Any: "):
                continue
            if rule is None or not rule(value):
                told = ",".join(value) if isinstance(value, tuple) else _shown(value)
                raise ValueError(f"{entry.flag}: {told} is not supported; what is: {entry.help}")


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _versions(first: int) -> Callable[[tuple[str, ...]], bool]:
    """Versions of Kubernetes from 1.`first` to 1.36, of this component."""
    known = {f"{component}1.{minor}" for component in ("", "kube=") for minor in range(first, 37)}
    return lambda told: known.issuperset(told)


_RULES: Mapping[str, Callable[[Any], bool]] = {
    "emulated_version": _versions(36),
    "goaway_chance": lambda chance: 0 <= chance <= 0.02,
    "min_compatibility_version": _versions(33),
    "show_hidden_metrics_for_version": lambda version: version == "1.35",
}
"""Which values other than the default are taken, too."""
