"""What --admission-control-config-file says to plugins (AdmissionConfiguration of apiserver.config.k8s.io).

A plugin's configuration stands in the file itself or in one of its own, which is named relative to it. Problems are
ValueErrors that name the field in upstream's words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastkube.api.field import quote

Object = dict[str, Any]

_GROUP = "apiserver.config.k8s.io"
_VERSIONS = ("v1", "v1alpha1")
_WEBHOOKS = ("MutatingAdmissionWebhook", "ValidatingAdmissionWebhook")
CONFIGURABLE = ("EventRateLimit", "PodSecurity", "ResourceQuota", *_WEBHOOKS)


class Configurations:
    """The documents of the plugins that have one; `of` gives it with its kind and version checked."""

    def __init__(self, documents: Mapping[str, Object]) -> None:
        self._documents = documents

    @classmethod
    def load(cls, path: str) -> Configurations:
        """Raises ValueError and OSError; without a path nothing is configured."""
        if not path:
            return cls({})
        try:
            document = _read(Path(path))
            _check_kind(document, "AdmissionConfiguration", _GROUP, _VERSIONS)
            only(document, "", "plugins")
            found: dict[str, Object] = {}
            for number, entry in enumerate(document.get("plugins") or ()):
                only(entry, f"plugins[{number}]", "name", "path", "configuration")
                name = str(entry.get("name") or "")
                told = entry.get("configuration")
                if told is None and entry.get("path"):
                    told = _read(Path(path).parent / str(entry["path"]))
                if told is not None:
                    found.setdefault(name, told)
        except ValueError as problem:
            raise ValueError(f"admission-control-config-file: {path}: {problem}") from None
        return cls(found)

    def check(self, running: Iterable[str]) -> None:
        """Raises ValueError where a plugin that runs is told what it does not take."""
        for name in running:
            if name in self._documents and name not in CONFIGURABLE:
                raise ValueError(f"admission-control-config-file: {name} takes no configuration")

    def of(self, plugin: str, kind: str, group: str, versions: tuple[str, ...]) -> Object | None:
        """The plugin's document; None where there is none. Raises ValueError for one of another kind."""
        document = self._documents.get(plugin)
        if document is not None:
            _check_kind(document, kind, group, versions)
        return document

    def webhook_kubeconfig(self) -> str:
        """The file that says who this server is for webhooks; it is the same for both kinds of them."""
        found = {path for path in map(self._kubeconfig_of, _WEBHOOKS) if path}
        if len(found) > 1:
            raise ValueError(f"kubeConfigFile: {' and '.join(_WEBHOOKS)} with different files is not supported")
        return found.pop() if found else ""

    def _kubeconfig_of(self, plugin: str) -> str:
        kinds = {_GROUP: ("WebhookAdmissionConfiguration", ("v1",)), "apiserver.k8s.io": ("WebhookAdmission", ())}
        told = str((self._documents.get(plugin) or {}).get("apiVersion") or "").partition("/")[0]
        kind, versions = kinds.get(told, kinds[_GROUP])
        document = self.of(plugin, kind, told if told in kinds else _GROUP, (*versions, "v1alpha1"))
        if document is None:
            return ""
        only(document, "", "kubeConfigFile")
        path = str(document.get("kubeConfigFile") or "")
        if path and not path.startswith("/"):
            raise ValueError(f"kubeConfigFile: Invalid value: {quote(path)}: must be an absolute file path")
        return path


def _read(path: Path) -> Object:
    import yaml

    try:
        document = yaml.safe_load(path.read_text())
    except yaml.YAMLError as problem:
        raise ValueError(f"{path}: {problem}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: couldn't get version/kind; expected an object")
    return document


def _check_kind(document: Object, kind: str, group: str, versions: tuple[str, ...]) -> None:
    told = str(document.get("apiVersion") or "")
    if document.get("kind") != kind or told not in [f"{group}/{version}" for version in versions]:
        raise ValueError(f'no kind "{document.get("kind") or ""}" is registered for version "{told}"')


def only(entry: Object, path: str, *known: str) -> None:
    """Raises ValueError, as strict decoding does, for a field that there is not."""
    for key in entry:
        if key not in known and (path or key not in ("apiVersion", "kind")):
            raise ValueError(f'strict decoding error: unknown field "{path}{"." if path else ""}{key}"')
