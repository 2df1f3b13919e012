"""Secrets, ConfigMaps and ServiceAccounts."""

from __future__ import annotations

import base64
from typing import Any

from fastkube.api import field, gojson
from fastkube.api.names import config_map_key, is_config_map_key
from fastkube.errors import Cause
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors
from fastkube.registry.strategies.key_pairs import pair_fault
from fastkube.registry.strategy import Call, Object, Strategy

_DATA_MAX_BYTES = 1024 * 1024
_SEALED = "field is immutable when `immutable` is set"
_REDACTED = "<secret contents redacted>"

_ACCOUNT_NAME = "kubernetes.io/service-account.name"
_MOUNTABLE = "kubernetes.io/enforce-mountable-secrets"
_ACCOUNT_TOKEN, _TLS = "kubernetes.io/service-account-token", "kubernetes.io/tls"
_DOCKER_KEYS = {
    "kubernetes.io/dockercfg": ".dockercfg",
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
}


def _keys(errs: Errors, path: str, data: dict[str, str]) -> None:
    for key in data:
        if not is_config_map_key(key):
            checks.faults(errs, f"{path}[{key}]", key, config_map_key)


def _sealed(errs: Errors, new: Object, old: Object, *keys: str) -> None:
    """What was made immutable stays so, and its data too."""
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        errs.append(field.forbidden("immutable", _SEALED))
    errs += [field.forbidden(key, _SEALED) for key in keys if (new.get(key) or {}) != (old.get(key) or {})]


def _decoded_size(text: str) -> int:
    """How many bytes a base64 text stands for."""
    return len(text) // 4 * 3 - text[-2:].count("=")


# ---------------------------------------------------------------- Secret


class SecretStrategy(Strategy):
    has_generation = False
    has_status = False

    def default(self, obj: Object) -> None:
        texts = obj.pop("stringData", None)
        if texts:
            data = obj.setdefault("data", {})
            for key, text in texts.items():
                data[key] = base64.b64encode(text.encode()).decode()
        if not obj.get("type"):
            obj["type"] = "Opaque"

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        data = obj.get("data") or {}
        _keys(errs, "data", data)
        if sum(map(_decoded_size, data.values())) > _DATA_MAX_BYTES:
            errs.append(field.too_long("data", _DATA_MAX_BYTES))
        if obj["type"] != "Opaque":
            _of_type(errs, obj, obj["type"], data)
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        checks.immutable(errs, "type", new["type"], old.get("type"))
        _sealed(errs, new, old, "data")
        return errs + self.validate(call, new)

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        if obj["type"] != _TLS:
            return []
        data = obj.get("data") or {}
        fault = pair_fault(*(base64.b64decode(data.get(key) or "") for key in ("tls.crt", "tls.key")))
        return [fault] if fault else []


def _of_type(errs: Errors, obj: Object, kind: str, data: dict[str, str]) -> None:
    if kind == _ACCOUNT_TOKEN:
        if not (obj["metadata"].get("annotations") or {}).get(_ACCOUNT_NAME):
            errs.append(field.required(f"metadata.annotations[{_ACCOUNT_NAME}]"))
    elif kind in _DOCKER_KEYS:
        _docker_config(errs, f"data[{_DOCKER_KEYS[kind]}]", data.get(_DOCKER_KEYS[kind]))
    elif kind == "kubernetes.io/basic-auth":
        if "username" not in data and "password" not in data:
            errs += [field.required("data[username]"), field.required("data[password]")]
    elif kind == "kubernetes.io/ssh-auth":
        if not data.get("ssh-privatekey"):
            errs.append(field.required("data[ssh-privatekey]"))
    elif kind == _TLS:
        errs += [field.required(f"data[{key}]") for key in ("tls.crt", "tls.key") if key not in data]


def _docker_config(errs: Errors, path: str, text: str | None) -> None:
    """A JSON object; the complaint never shows it."""
    if text is None:
        errs.append(field.required(path))
        return
    body = base64.b64decode(text)
    fault = gojson.fault(body)
    if fault is None:
        value = gojson.parse(body)
        if value is not None and not isinstance(value, dict):
            fault = f"json: cannot unmarshal {_json_kind(value)} into Go value of type map[string]interface {{}}"
    if fault is not None:
        errs.append(field.invalid(path, _REDACTED, fault))


def _json_kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "array" if isinstance(value, list) else "string" if isinstance(value, str) else "number"


# ---------------------------------------------------------------- ConfigMap


class ConfigMapStrategy(Strategy):
    has_generation = False
    has_status = False

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
        size = 0
        for key, text in data.items():
            if not is_config_map_key(key):
                checks.faults(errs, f"data[{key}]", key, config_map_key)
            if key in binary:
                errs.append(field.invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
            size += len(text) if text.isascii() else len(text.encode())
        if binary:
            _keys(errs, "binaryData", binary)
            size += sum(map(_decoded_size, binary.values()))
        if size > _DATA_MAX_BYTES:
            errs.append(field.too_long("[]", _DATA_MAX_BYTES))
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        _sealed(errs, new, old, "data", "binaryData")
        return errs + self.validate(call, new)


# ---------------------------------------------------------------- ServiceAccount


class ServiceAccountStrategy(Strategy):
    has_generation = False
    has_status = False

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        _keep_names(obj)

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        _keep_names(new)

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        marked = [_MOUNTABLE in (each["metadata"].get("annotations") or {}) for each in (obj, old) if each]
        if marked[0] and not any(marked[1:]):
            told = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
            return [f"metadata.annotations[{_MOUNTABLE}]: {told}"]
        return []


def _keep_names(obj: Object) -> None:
    """Of a reference to a Secret only the name counts."""
    if obj.get("secrets"):
        obj["secrets"] = [{"name": secret["name"]} if secret.get("name") else {} for secret in obj["secrets"]]


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("", "secrets"): SecretStrategy(),
    ("", "configmaps"): ConfigMapStrategy(),
    ("", "serviceaccounts"): ServiceAccountStrategy(),
}
