"""Conversion between the versions of a custom kind by its definition's webhook.

Reads convert what they found before it is shown, all objects of a list in one review. Writes compute in plain
functions that cannot wait; where one of these needs a conversion that is not known yet it ends with
`ConversionNeeded`, the webhook is asked, and the write begins anew (nothing has been stored by then). What the webhook
said is remembered for as long as such a write takes, and a little longer.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgpack

from fastkube import errors
from fastkube.api.conversion import ConversionNeeded
from fastkube.errors import ApiError
from fastkube.registry.answers import Stored

if TYPE_CHECKING:
    from fastkube.api.catalog import ResourceType

Object = dict[str, Any]
Post = Callable[[Object, Object, int], Awaitable[Any]]
"""Asks a webhook: its clientConfig, the document, how long to wait in seconds; the answer's document."""

_TIMEOUT_S = 30
_MEMORY_MAX = 512
_ROUNDS_MAX = 50
_VERSIONS = ("v1", "v1beta1")
_GROUP = "apiextensions.k8s.io"
_CONVERTED = ("labels", "annotations")
_KEPT = ("name", "namespace", "uid")

_T = TypeVar("_T")


class Failed(Exception):
    """The webhook could not be asked, or its answer cannot be used."""


class Converter:
    """The webhook of one definition. `fit` prunes and completes what comes from it, by the schema of its version."""

    def __init__(self, conversion: Object, kind: str, post: Post, fit: Callable[[Object], Object]) -> None:
        webhook = conversion["webhook"]
        self._config: Object = webhook["clientConfig"]
        self._version = next(each for each in _VERSIONS if each in webhook["conversionReviewVersions"])
        self._kind = kind
        self._post = post
        self._fit = fit
        self._known: OrderedDict[tuple[bytes, str], bytes] = OrderedDict()

    def lookup(self, obj: Object, wanted: str) -> Object:
        """The object in the version `wanted`; raises ConversionNeeded when the webhook must be asked first."""
        if obj["apiVersion"] == wanted:
            return obj
        known = self._known.get((_essence(obj), wanted))
        if known is None:
            raise ConversionNeeded(obj, wanted)
        return _with_metadata_of(obj, msgpack.unpackb(known))

    async def fulfil(self, needed: ConversionNeeded) -> None:
        """Asks the webhook for what a computation lacked. Raises ApiError."""
        try:
            (made,) = await self.convert([needed.obj], needed.wanted)
        except Failed as problem:
            raise ApiError(500, "", str(problem)) from None
        given, packed = _essence(needed.obj), _essence(made)
        self._known[given, needed.wanted] = packed
        self._known[packed, needed.obj["apiVersion"]] = given
        while len(self._known) > _MEMORY_MAX:
            self._known.popitem(last=False)

    async def convert(self, objects: list[Object], wanted: str) -> list[Object]:
        """All of the objects in the version `wanted`, by one review. Raises Failed."""
        others = [obj for obj in objects if obj["apiVersion"] != wanted]
        if not others:
            return objects
        told = f"conversion webhook for {others[0]['apiVersion']}, Kind={self._kind}"
        answered = iter(await self._ask(others, wanted, told))
        return [
            obj if obj["apiVersion"] == wanted else self._checked(obj, next(answered), wanted, told) for obj in objects
        ]

    async def _ask(self, objects: list[Object], wanted: str, told: str) -> list[Any]:
        uid = str(uuid.uuid4())
        review = {
            "kind": "ConversionReview",
            "apiVersion": f"{_GROUP}/{self._version}",
            "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects},
        }
        try:
            answer = await self._post(self._config, review, _TIMEOUT_S)
        except Exception as problem:
            raise Failed(f"{told} failed: {problem}") from None
        response = _response(answer, review, uid, told)
        found = response.get("convertedObjects") or []
        if len(found) != len(objects):
            raise Failed(f"{told} returned {len(found)} objects, expected {len(objects)}")
        return list(found)

    def _checked(self, obj: Object, made: Any, wanted: str, told: str) -> Object:
        """What the webhook made, with the metadata that it may not change."""
        if not isinstance(made, dict) or made.get("apiVersion") != wanted:
            given = made.get("apiVersion") if isinstance(made, dict) else ""
            problem = f"invalid groupVersion (expected {wanted}, received {given})"
            raise Failed(f"{told} returned invalid converted object: {problem}")
        if made.get("kind") != obj["kind"]:
            problem = f"invalid kind (expected {obj['kind']}, received {made.get('kind')})"
            raise Failed(f"{told} returned invalid converted object: {problem}")
        metadata, before = made.get("metadata") or {}, obj["metadata"]
        for key in _KEPT:
            if (metadata.get(key) or "") != (before.get(key) or ""):
                problem = f"must have the same {key}: {metadata.get(key)} != {before.get(key)}"
                raise Failed(f"{told} returned invalid metadata in converted object: {problem}")
        return self._fit(_with_metadata_of(obj, made))

    async def shown(self, items: list[Stored], wanted: str) -> list[Stored]:
        """Stored objects in the version of a request. Raises 500."""
        objects = [msgpack.unpackb(item.value) for item in items]
        try:
            made = await self.convert(objects, wanted)
        except Failed as problem:
            raise errors.internal(str(problem)) from None
        return [Stored(msgpack.packb(obj), item.revision) for obj, item in zip(made, items, strict=True)]


def _essence(obj: Object) -> bytes:
    """What a conversion depends on and makes: all but the metadata that no webhook may change."""
    metadata = obj["metadata"]
    told = {key: metadata[key] for key in (*_CONVERTED, "name", "namespace") if metadata.get(key)}
    packed: bytes = msgpack.packb({**obj, "metadata": told})
    return packed


def _with_metadata_of(obj: Object, made: Object) -> Object:
    """What a webhook made of an object, with that object's metadata but for the labels and annotations."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _CONVERTED}
    for key in _CONVERTED:
        if value := (made.get("metadata") or {}).get(key):
            metadata[key] = value
    return {**made, "metadata": metadata}


def _response(answer: Any, review: Object, uid: str, told: str) -> Object:
    if not isinstance(answer, dict) or (answer.get("kind"), answer.get("apiVersion")) != (
        review["kind"],
        review["apiVersion"],
    ):
        given = (answer.get("apiVersion"), answer.get("kind")) if isinstance(answer, dict) else ("", "")
        wanted = f"{review['apiVersion']}, Kind=ConversionReview"
        raise Failed(f"{told} failed: expected webhook response of {wanted}, got {given[0]}, Kind={given[1]}")
    response = answer.get("response")
    if not isinstance(response, dict):
        raise Failed(f"{told} failed: no response provided")
    if response.get("uid") != uid:
        raise Failed(f'{told} failed: expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    result = response.get("result") or {}
    if result.get("status") != "Success":
        why = result.get("message") or "Conversion request failed with unspecified error"
        raise Failed(f"{told} failed: {why}")
    return response


async def completed(rtype: ResourceType, compute: Callable[[], Awaitable[_T]]) -> _T:
    """The outcome of a write that may lack conversions: each is asked for, and the write begun anew."""
    converter: Converter = rtype.extra["converter"]
    for _ in range(_ROUNDS_MAX):
        try:
            return await compute()
        except ConversionNeeded as needed:
            await converter.fulfil(needed)
    raise ApiError(500, "", f"conversion of {rtype.resource}.{rtype.group} does not come to an end")
