"""Secrets, ConfigMaps and ServiceAccounts."""

from __future__ import annotations

import base64

from fastkube.registry.strategy import Call, Object, Strategy


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


class ConfigMapStrategy(Strategy):
    has_generation = False
    has_status = False


class ServiceAccountStrategy(Strategy):
    has_generation = False
    has_status = False

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        _keep_names(obj)

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        _keep_names(new)


def _keep_names(obj: Object) -> None:
    """Of a reference to a Secret only the name counts."""
    if obj.get("secrets"):
        obj["secrets"] = [{"name": secret["name"]} if secret.get("name") else {} for secret in obj["secrets"]]


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("", "secrets"): SecretStrategy(),
    ("", "configmaps"): ConfigMapStrategy(),
    ("", "serviceaccounts"): ServiceAccountStrategy(),
}
