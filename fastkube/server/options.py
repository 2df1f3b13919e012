"""What the API server can be told: the flags of kube-apiserver that it knows, under the same names and meanings."""

from __future__ import annotations

from dataclasses import dataclass

from fastkube.config import option
from fastkube.server.audit_options import AuditOptions
from fastkube.server.tls_options import TLS_VERSIONS

REVIEW_VERSIONS = ("v1beta1", "v1")
AUTHORIZATION_MODES = ("AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook")


@dataclass(frozen=True)
class ServerOptions(AuditOptions):
    """Immutable; `validate` is called when the server is made."""

    # Listening.
    bind_address: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 and :: are all interfaces.")
    secure_port: int | None = option(6443, "Port for HTTPS; 0 takes a free one.")
    http_port: int | None = option(None, "Port for plain HTTP on 127.0.0.1, for development; 0 takes a free one.")
    unix_socket: str = option("", "Path of a Unix socket that serves plain HTTP to the same user.", metavar="FILE")
    advertise_address: str = option("", "Address that members of the cluster reach this server at.")
    frontends: int = option(
        0, "Processes that share the secure port and leave only writing to this one; 0: it serves the port itself."
    )
    feature_gates: tuple[str, ...] = option((), "Feature gates of Kubernetes, as Name=true; all are off without.")
    runtime_config: tuple[str, ...] = option((), "Versions of the API to serve besides, as group/version=true.")
    external_hostname: str = option("", "Host name that clients reach this server by.")
    max_connections: int = option(10_000, "Connections beyond this number are closed at once.")

    # Certificates.
    cert_dir: str = option("", "Folder of the keys and certificates that no flag names.", metavar="DIR")
    tls_cert_file: str = option("", "Serving certificate (PEM), with its chain.", metavar="FILE")
    tls_private_key_file: str = option("", "Key of the serving certificate.", metavar="FILE")
    client_ca_file: str = option("", "Authority of client certificates; by default the cluster's own.", metavar="FILE")

    tls_min_version: str = option("VersionTLS12", f"Any of {', '.join(TLS_VERSIONS)}.")
    tls_cipher_suites: tuple[str, ...] = option((), "Cipher suites by their IANA names; by default OpenSSL's.")
    tls_sni_cert_key: tuple[str, ...] = option(
        (), "Further serving certificate, CERT,KEY or CERT,KEY:NAME,..., for names that clients ask for.", whole=True
    )
    permit_port_sharing: bool = option(False, "Let other processes listen on the secure port, too.")
    proxy_client_cert_file: str = option("", "Certificate that aggregated API servers are shown.", metavar="FILE")
    proxy_client_key_file: str = option("", "Key of that certificate.", metavar="FILE")

    # Authentication.
    token_auth_file: str = option("", 'CSV of static tokens: token,user,uid,"group1,group2".', metavar="FILE")
    anonymous_auth: bool = option(True, "Let requests without credentials in as system:anonymous.")
    authentication_config: str = option("", "AuthenticationConfiguration: JWT issuers, anonymous.", metavar="FILE")
    oidc_issuer_url: str = option("", "Issuer of OpenID Connect tokens to accept.", metavar="URL")
    oidc_client_id: str = option("", "Audience that tokens of the OpenID Connect issuer must be for.")
    oidc_ca_file: str = option("", "Authority of the OpenID Connect issuer; by default the system's.", metavar="FILE")
    oidc_username_claim: str = option("sub", "Claim that names the user.")
    oidc_username_prefix: str = option("", "Prefix of user names; by default ISSUER# unless they are emails; -: none.")
    oidc_groups_claim: str = option("", "Claim that lists the groups.")
    oidc_groups_prefix: str = option("", "Prefix of groups.")
    oidc_signing_algs: tuple[str, ...] = option(("RS256",), "Algorithms that OpenID Connect tokens may be signed by.")
    oidc_required_claim: tuple[str, ...] = option((), "Claims (key=value) that tokens must have.")
    authentication_token_webhook_config_file: str = option("", "Kubeconfig of a webhook that reviews tokens.")
    authentication_token_webhook_version: str = option("v1beta1", "Version of its TokenReviews: v1beta1 or v1.")
    authentication_token_webhook_cache_ttl_s: float = option(120.0, "How long its answers are kept.")
    enable_bootstrap_token_auth: bool = option(False, "Accept the bootstrap tokens in Secrets of kube-system.")
    requestheader_client_ca_file: str = option("", "Authority of authenticating proxies.", metavar="FILE")
    requestheader_allowed_names: tuple[str, ...] = option((), "Common names of authenticating proxies; none: all.")
    requestheader_username_headers: tuple[str, ...] = option(("X-Remote-User",), "Headers that name the user.")
    requestheader_uid_headers: tuple[str, ...] = option(("X-Remote-Uid",), "Headers that give the user's UID.")
    requestheader_group_headers: tuple[str, ...] = option(("X-Remote-Group",), "Headers that list the groups.")
    requestheader_extra_headers_prefix: tuple[str, ...] = option(("X-Remote-Extra-",), "Prefixes of extra headers.")
    service_account_issuer: tuple[str, ...] = option(
        ("https://kubernetes.default.svc",),
        "Issuer of ServiceAccount tokens; those of further ones are accepted.",
        whole=True,
    )
    service_account_signing_key_file: str = option("", "RSA key that signs ServiceAccount tokens.", metavar="FILE")
    service_account_key_file: tuple[str, ...] = option((), "Further keys that verify ServiceAccount tokens.")
    service_account_jwks_uri: str = option("", "Where the discovery document says the keys are.", metavar="URL")
    service_account_max_token_expiration_s: float = option(0.0, "Longest life of a requested token; 0: no limit.")
    service_account_extend_token_expiration: bool = option(
        True, "Let tokens that Pods get for an hour live for a year, and warn of their use after the hour."
    )
    service_account_lookup: bool = option(True, "Refuse tokens of ServiceAccounts that are gone.")
    api_audiences: tuple[str, ...] = option((), "Audiences that tokens may be for; by default the issuer.")

    # The way to kubelets.
    kubelet_preferred_address_types: tuple[str, ...] = option(
        ("InternalDNS", "InternalIP", "Hostname", "ExternalDNS", "ExternalIP"), "Which address of a node is taken."
    )
    kubelet_certificate_authority: str = option("", "Authority of kubelets' serving certificates.", metavar="FILE")
    kubelet_client_certificate: str = option("", "Client certificate for kubelets.", metavar="FILE")
    kubelet_timeout_s: float = option(5.0, "How long a connection to a kubelet may take.")
    kubelet_client_key: str = option("", "Key of the client certificate for kubelets.", metavar="FILE")

    # Authorization.
    authorization_mode: tuple[str, ...] = option(("Node", "RBAC"), f"Any of {', '.join(AUTHORIZATION_MODES)}.")
    authorization_config: str = option("", "AuthorizationConfiguration, instead of the mode.", metavar="FILE")
    authorization_webhook_config_file: str = option("", "Kubeconfig of the mode Webhook.", metavar="FILE")
    authorization_webhook_version: str = option("v1beta1", "Version of its SubjectAccessReviews: v1beta1 or v1.")
    authorization_webhook_cache_authorized_ttl_s: float = option(300.0, "How long what it allows is kept.")
    authorization_webhook_cache_unauthorized_ttl_s: float = option(30.0, "How long what it does not allow is kept.")

    # Encryption at rest.
    encryption_provider_config: str = option(
        "", "EncryptionConfiguration: which resources lie encrypted on the disk, and with which keys.", metavar="FILE"
    )

    encryption_provider_config_automatic_reload: bool = option(False, "Read that file again when it changes.")

    # Admission.
    admission_control: tuple[str, ...] = option((), "The admission plugins to run, and no others; deprecated.")
    admission_control_config_file: str = option("", "AdmissionConfiguration of plugins.", metavar="FILE")
    enable_admission_plugins: tuple[str, ...] = option((), "Admission plugins to run besides those on by default.")
    disable_admission_plugins: tuple[str, ...] = option((), "Admission plugins to leave out.")

    default_not_ready_toleration_seconds: int = option(300, "How long Pods stay on nodes that are not ready.")
    default_unreachable_toleration_seconds: int = option(300, "How long Pods stay on nodes out of reach.")

    # Limits.
    request_timeout_s: float = option(60.0, "Requests other than watches are ended after this time.")
    min_request_timeout_s: float = option(1800.0, "Watches without a timeout live this long, and up to twice as long.")
    max_requests_inflight: int = option(400, "Requests that only read, under way at the same time.")
    max_mutating_requests_inflight: int = option(200, "Requests that write, under way at the same time.")
    enable_priority_and_fairness: bool = option(True, "Queue what is too much rather than refuse it.")
    shutdown_delay_duration_s: float = option(0.0, "How long to serve on, no longer ready, before stopping.")
    shutdown_send_retry_after: bool = option(
        False, "While stopping, answer new requests with 429 until those under way are done."
    )
    shutdown_grace_s: float = option(1.0, "How long requests under way may take to finish when the server stops.")

    profiling: bool = option(True, "Serve /debug/pprof, by py-spy.")

    etcd_compaction_interval_s: float = option(300.0, "Age from which on history is given up; 0 keeps all of it.")

    event_ttl_s: float = option(3600.0, "How long Events are kept.")

    # The cluster.
    endpoint_reconciler_type: str = option(
        "lease", "none: the endpoints of the kubernetes Service are somebody else's.", choices=("lease", "none")
    )
    kubernetes_service_node_port: int = option(0, "Node port of the kubernetes Service; 0: it has none.")
    aggregator_reject_forwarding_redirect: bool = option(True, "Answer 502 where an aggregated server redirects.")
    disabled_metrics: tuple[str, ...] = option((), "Metrics that /metrics leaves out.")
    service_cluster_ip_range: str = option("10.96.0.0/16", "Addresses of Services.", metavar="CIDR")
    service_node_port_range: str = option("30000-32767", "Ports of Services of type NodePort.", metavar="FIRST-LAST")

    def validate(self) -> None:
        """Raises ValueError, naming the flag, for what cannot be served."""
        self.validate_audit()
        for mode in self.authorization_mode:
            if mode not in AUTHORIZATION_MODES:
                raise ValueError(f"authorization-mode: {mode!r} is not one of {', '.join(AUTHORIZATION_MODES)}")
        if not self.authorization_mode:
            raise ValueError("authorization-mode: at least one mode must be given")
        if bool(self.tls_cert_file) != bool(self.tls_private_key_file):
            raise ValueError("tls-cert-file and tls-private-key-file: either both or none must be given")
        if bool(self.proxy_client_cert_file) != bool(self.proxy_client_key_file):
            raise ValueError("proxy-client-cert-file and proxy-client-key-file: either both or none must be given")
        if self.secure_port is not None and not self.cert_dir and not self.tls_cert_file:
            raise ValueError("cert-dir: must be given when no tls-cert-file is")
        for name, port in (("secure-port", self.secure_port), ("http-port", self.http_port)):
            if port is not None and not 0 <= port <= 65535:
                raise ValueError(f"{name}: {port} is not a port between 0 and 65535")
        if self.secure_port is None and self.http_port is None and not self.unix_socket:
            raise ValueError("secure-port, http-port, unix-socket: at least one must be given")
        for flag, version in (
            ("authentication-token-webhook-version", self.authentication_token_webhook_version),
            ("authorization-webhook-version", self.authorization_webhook_version),
        ):
            if version not in REVIEW_VERSIONS:
                raise ValueError(f"{flag}: {version!r} is not one of {', '.join(REVIEW_VERSIONS)}")
        if self.frontends < 0 or (self.frontends and self.secure_port is None):
            raise ValueError("frontends: a number of processes for a secure-port")
        if self.frontends and self.audit_log_path:
            raise ValueError("frontends: not with audit-log-path, a file that one process writes")
        if not self.service_account_issuer:
            raise ValueError("service-account-issuer: must not be empty")
        for flag, number in (
            ("request-timeout", self.request_timeout_s),
            ("min-request-timeout", self.min_request_timeout_s),
            ("max-connections", self.max_connections),
            ("max-requests-inflight", self.max_requests_inflight),
            ("max-mutating-requests-inflight", self.max_mutating_requests_inflight),
            ("default-not-ready-toleration-seconds", self.default_not_ready_toleration_seconds + 1),
            ("default-unreachable-toleration-seconds", self.default_unreachable_toleration_seconds + 1),
            ("kubelet-timeout", self.kubelet_timeout_s),
        ):
            if number <= 0:
                raise ValueError(f"{flag}: must be positive")

    @property
    def audiences(self) -> tuple[str, ...]:
        """The audiences a token must be for: those given, or else the issuer itself."""
        return self.api_audiences or self.service_account_issuer
