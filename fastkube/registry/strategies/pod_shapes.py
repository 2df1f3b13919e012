"""Pods come from templates: what was found out about one spec holds for the thousands that are equal to it.

A shape is the encoded spec with the Pod's annotations: all that the validation and the warnings of a new Pod's spec
depend on. Only the name of the volume that ServiceAccount admission makes up differs from Pod to Pod; it stands for
itself alone, so any other valid name in its place gives the same result. Kept are shapes without a fault: messages
about faults may quote that name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

Object = dict[str, Any]

ACCESS_VOLUME = "kube-api-access-"
_SUFFIX_LENGTH = 5
_ANY_VOLUME = f"{ACCESS_VOLUME}{'x' * _SUFFIX_LENGTH}".encode()

_KEPT_MAX = 1024
_SHAPE_MAX_BYTES = 32 * 1024

_pack: Callable[[Any], bytes] = msgpack.packb
_sound: dict[bytes, list[str]] = {}
"""Shapes without a fault, and their warnings."""


def shape_of(obj: Object) -> bytes | None:
    """The shape of a Pod; None for one whose validation depends on more."""
    spec = obj["spec"]
    made_up = b""
    for volume in spec.get("volumes") or ():
        if "ephemeral" in volume:  # the claim's name is made of the Pod's
            return None
        name = volume.get("name") or ""
        if name.startswith(ACCESS_VOLUME) and len(name) == len(_ANY_VOLUME):
            made_up = name.encode()
    shape = _pack((spec, obj["metadata"].get("annotations")))
    if made_up:
        if _ANY_VOLUME in shape or not made_up.isascii() or not made_up[len(ACCESS_VOLUME) :].isalnum():
            return None
        if made_up[len(ACCESS_VOLUME) :].lower() != made_up[len(ACCESS_VOLUME) :]:
            return None
        shape = shape.replace(made_up, _ANY_VOLUME)
    return shape if len(shape) <= _SHAPE_MAX_BYTES else None


def access_volume(obj: Object) -> tuple[str, int]:
    """The volume that ServiceAccount admission makes up, and how often its name stands in the spec; "" without one."""
    spec = obj["spec"]
    name = next((one["name"] for one in spec.get("volumes") or () if one["name"].startswith(ACCESS_VOLUME)), "")
    if len(name) != len(_ANY_VOLUME):
        return "", 0
    containers = (*(spec.get("initContainers") or ()), *spec["containers"])
    mounts = (mount for container in containers for mount in container.get("volumeMounts") or ())
    return name, 1 + sum(mount["name"] == name for mount in mounts)


def warnings_of(shape: bytes | None) -> list[str] | None:
    """The warnings of a shape that is known to be without a fault; None for any other."""
    return _sound.get(shape) if shape is not None else None


def keep(shape: bytes, warnings: list[str]) -> None:
    """This shape has no fault."""
    if len(_sound) >= _KEPT_MAX:
        _sound.clear()
    _sound[shape] = warnings
