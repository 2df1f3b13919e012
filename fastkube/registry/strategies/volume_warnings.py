"""Warnings about files of volumes that get into each other's way (upstream's warningsForOverlappingVirtualPaths)."""

from __future__ import annotations

from typing import NamedTuple

from fastkube.api.field import quote
from fastkube.registry.strategies.checks import Object


class _File(NamedTuple):
    """A file of a volume and, in projected ones, what it comes from."""

    path: str
    source: str

    def __str__(self) -> str:
        return f"{quote(self.path)} ({self.source})" if self.source else quote(self.path)


def overlapping_paths(volumes: list[Object]) -> list[str]:
    """A warning for each two files of one volume of which one is the other or lies below it."""
    told: list[str] = []
    for volume in volumes:
        name = quote(volume.get("name") or "")
        for key, title in _mapped(volume):
            told += _overlaps(f"volume {name} ({title})", _listed(volume[key], ""))
        if "projected" in volume:
            told += _projected(name, volume["projected"])
    return told


def _mapped(volume: Object) -> list[tuple[str, str]]:
    """The sources of the volume itself that map keys to files, as warnings call them."""
    found = []
    if "configMap" in volume:
        found.append(("configMap", f"ConfigMap {quote(volume['configMap'].get('name') or '')}"))
    if "secret" in volume:
        found.append(("secret", f"Secret {quote(volume['secret'].get('secretName') or '')}"))
    if "downwardAPI" in volume:
        found.append(("downwardAPI", "DownwardAPI"))
    return found


def _projected(name: str, projected: Object) -> list[str]:
    told: list[str] = []
    files: list[_File] = []
    for source in projected.get("sources") or ():
        if not source:
            told.append(f"volume {name} (Projected) has no sources provided")
        files += (found := _projected_files(source))
        told += _overlaps(f"volume {name} (Projected)", files, len(files) - len(found))
    return told


def _projected_files(source: Object) -> list[_File]:
    for key, title in (("configMap", "ConfigMap"), ("secret", "Secret")):
        if "items" in (source.get(key) or {}):
            return _listed(source[key], f"{title} {quote(source[key].get('name') or '')}")
    if "items" in (source.get("downwardAPI") or {}):
        return _listed(source["downwardAPI"], "DownwardAPI")
    if "serviceAccountToken" in source:
        return [_File((source["serviceAccountToken"].get("path") or "").rstrip("/"), "ServiceAccountToken")]
    return []


def _listed(holder: Object, source: str) -> list[_File]:
    return [_File((item.get("path") or "").rstrip("/"), source) for item in holder.get("items") or ()]


def _overlaps(title: str, files: list[_File], first: int = 0) -> list[str]:
    """What those from number `first` on have in common with those before each."""
    return [
        f"{title}: overlapping paths: {file} with {other}"
        for number, file in enumerate(files[first:], first)
        for other in files[:number]
        if file.path and other.path and _nested(f"{file.path}/", f"{other.path}/")
    ]


def _nested(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)
