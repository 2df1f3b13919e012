"""ServiceAccount: every Pod runs as a service account, and finds that account's token where clients look for it.

Source: "Managing Service Accounts" in the Kubernetes documentation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from typing import TYPE_CHECKING

from fastkube.api import meta
from fastkube.server.admission.plugin import CREATE, UPDATE, Identity, Plugin, forbid
from fastkube.server.admission.pods import POD

if TYPE_CHECKING:
    from fastkube.clock import Clock
    from fastkube.registry.strategy import Call, Object
    from fastkube.server.admission.lookup import Lookups

_DEFAULT = "default"
_MIRROR = "kubernetes.io/config.mirror"
_ENFORCE_SECRETS = "kubernetes.io/enforce-mountable-secrets"
_VOLUME_PREFIX = "kube-api-access-"
_MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_TOKEN_LIFE_S = 3607

_RETRIES = 3
_RETRY_S = 0.15
"""A namespace's default account is made by a controller, shortly after the namespace."""


class ServiceAccount(Plugin):
    name = "ServiceAccount"
    mutates = validates = True
    by_shape = True

    def __init__(self, lookups: Lookups, clock: Clock) -> None:
        self._accounts = lookups.service_accounts
        self._clock = clock

    def handles(self, target: Identity, operation: str) -> bool:
        if target == POD:
            return operation == CREATE
        return target == ("", "pods", "ephemeralcontainers") and operation == UPDATE

    def mutate(self, call: Call, obj: Object, old: Object | None) -> Awaitable[None] | None:
        if old is not None or _is_mirror(obj):
            return None
        spec = obj["spec"]
        name = spec.get("serviceAccountName") or _DEFAULT
        account = self._accounts.get(call.namespace, name)
        if account is None:
            return self._wait(call, obj, name)
        _complete(obj, name, account)
        return None

    async def _wait(self, call: Call, obj: Object, name: str) -> None:
        for _ in range(_RETRIES):
            await self._clock.sleep(_RETRY_S)
            account = self._accounts.get(call.namespace, name)
            if account is not None:
                _complete(obj, name, account)
                return
        raise self._unknown(call, obj, name)

    @staticmethod
    def _unknown(call: Call, obj: Object, name: str) -> Exception:
        where = f"{call.namespace}/{name}"
        return forbid(call, obj, f'error looking up service account {where}: serviceaccount "{name}" not found')

    def validate(self, call: Call, obj: Object, old: Object | None) -> None:
        spec = obj["spec"]
        name = spec.get("serviceAccountName")
        if _is_mirror(obj):
            _check_mirror(call, obj, spec)
            return
        if not name:
            where = f"{call.namespace}/{obj['metadata'].get('name', '')}"
            raise forbid(call, obj, f"no service account specified for pod {where}")
        account = self._accounts.get(call.namespace, name)
        if account is None:
            raise self._unknown(call, obj, name)
        annotations = account["metadata"].get("annotations") or {}
        if annotations.get(_ENFORCE_SECRETS) == "true":
            _check_secrets(call, obj, spec, account)


def _is_mirror(pod: Object) -> bool:
    """Whether the Pod only shows what a kubelet runs from a file."""
    return _MIRROR in (pod["metadata"].get("annotations") or ())


def _complete(pod: Object, name: str, account: Object) -> None:
    spec = pod["spec"]
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    mounts = spec.get("automountServiceAccountToken")
    if mounts is None:
        mounts = account.get("automountServiceAccountToken")
    if mounts is None or mounts:
        _mount_token(spec)
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(secret) for secret in account["imagePullSecrets"]]


def _mount_token(spec: Object) -> None:
    """Mounts the token into every container that has nothing else at its place."""
    volumes: list[Object] = spec.get("volumes") or []
    existing = [volume["name"] for volume in volumes if volume["name"].startswith(_VOLUME_PREFIX)]
    volume_name = existing[0] if existing else meta.generate_name(_VOLUME_PREFIX)
    mount = {"name": volume_name, "readOnly": True, "mountPath": _MOUNT_PATH}
    mounted = False
    for key in ("initContainers", "containers"):
        for container in spec.get(key) or ():
            mounts: list[Object] = container.get("volumeMounts") or []
            if not any(each.get("mountPath") == _MOUNT_PATH for each in mounts):
                container["volumeMounts"] = [*mounts, dict(mount)]
                mounted = True
    if mounted and not existing:
        spec["volumes"] = [*volumes, {"name": volume_name, "projected": _token_source()}]


def _token_source() -> Object:
    """The token itself, the cluster's CA and the namespace's name."""
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return {
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": _TOKEN_LIFE_S, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [namespace]}},
        ],
        "defaultMode": 0o644,
    }


def _check_mirror(call: Call, pod: Object, spec: Object) -> None:
    if spec.get("serviceAccountName"):
        raise forbid(call, pod, "a mirror pod may not reference service accounts")
    if any(True for _ in _secrets_of(spec)):
        raise forbid(call, pod, "a mirror pod may not reference secrets")
    for volume in spec.get("volumes") or ():
        sources = (volume.get("projected") or {}).get("sources") or ()
        if any("serviceAccountToken" in source for source in sources):
            raise forbid(call, pod, "a mirror pod may not use ServiceAccountToken volume projections")


def _secrets_of(spec: Object) -> Iterator[tuple[str, str]]:
    """(where, secret) of each secret which the containers and volumes use."""
    for volume in spec.get("volumes") or ():
        if "secret" in volume:
            name = volume["secret"].get("secretName") or ""
            yield f'volume with secret.secretName="{name}"', name
    for key, what in (("initContainers", "Init container"), ("containers", "Container")):
        for container in spec.get(key) or ():
            where = f"{what} {container['name']}"
            for env in container.get("env") or ():
                ref = (env.get("valueFrom") or {}).get("secretKeyRef")
                if ref:
                    name = ref.get("name") or ""
                    yield f'{where} with envVar {env["name"]} referencing secret.secretName="{name}"', name
            for source in container.get("envFrom") or ():
                if source.get("secretRef"):
                    name = source["secretRef"].get("name") or ""
                    yield f'{where} with envFrom referencing secret.secretName="{name}"', name


def _check_secrets(call: Call, pod: Object, spec: Object, account: Object) -> None:
    """An account may be restricted to the secrets that it lists."""
    why = f"is not allowed because service account {account['metadata']['name']} does not reference that"
    allowed = {ref.get("name") for ref in account.get("secrets") or ()}
    for where, secret in _secrets_of(spec):
        if secret not in allowed:
            raise forbid(call, pod, f"{where} {why} secret")
    pullable = {ref.get("name") for ref in account.get("imagePullSecrets") or ()}
    for index, ref in enumerate(spec.get("imagePullSecrets") or ()):
        if ref.get("name") not in pullable:
            where = f'imagePullSecrets[{index}].name="{ref.get("name", "")}"'
            raise forbid(call, pod, f"{where} {why} imagePullSecret")
