"""Who manages which fields (metadata.managedFields), and server-side apply.

    create   created(obj)             all that the object sets belongs to its creator
    update   updated(old, new)        what changed goes to the writer and leaves everybody else
    apply    apply(live, config)      what the configuration names belongs to the applier; a field that another manager
                                      owns and that would change is a conflict, unless forced; what the applier named
                                      before and names no more is removed, unless somebody else owns it
    store    settled(old, new)        entries that differ in nothing but their times stay, so nothing is written

Rules:
  1. All functions are pure. Objects come and go in the version of the request, `Writer.api_version`; entries written in
     other versions are compared in theirs, through `Versions`.
  2. An applier is known by name and subresource; an updater also by version. Entries are in upstream's order:
     appliers before updaters, then by time and name.
  3. Fields that only the server sets (name, uid, ...) have no manager, nor have those that the written subresource
     takes back (`Writer.ignored`: status on the main resource, spec on status).
  4. An object that nobody tracks stays untracked until somebody applies to it; what it held then belongs to the manager
     `before-first-apply`.
  5. Someone who applies as `kubectl` takes over from kubectl's client-side apply: fields that stand in the
     last-applied annotation unchanged are no conflicts, and the annotation is kept up to date.

Costs: a create walks the object once (`typed.made`); an update compares only the parts that differ.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import orjson

from fastkube._fields import clone
from fastkube.api import fieldsets, meta, typed
from fastkube.api.catalog import split_api_version
from fastkube.api.field import quote
from fastkube.api.fieldsets import LEAF, FieldSet
from fastkube.api.schema import Schema
from fastkube.clock import rfc3339
from fastkube.errors import ApiError, Cause, bad_request

Object = dict[str, Any]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
BEFORE_FIRST_APPLY = "before-first-apply"
ANCIENT_CHANGES = "ancient-changes"

STATUS: FieldSet = {"f:status": LEAF}
SPEC: FieldSet = {"f:spec": LEAF}
"""What a write to the main resource and one to /status usually ignore."""

_UPDATERS_MAX = 10
_UNMANAGED_METADATA = frozenset(
    ("name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion")
)
_UNMANAGED: FieldSet = {
    "f:apiVersion": LEAF,
    "f:kind": LEAF,
    "f:metadata": {".": LEAF, **{f"f:{key}": LEAF for key in sorted(_UNMANAGED_METADATA)}},
}


class Versions(Protocol):
    """The other versions in which the object can be seen."""

    def schema(self, api_version: str) -> Schema | None:
        """None for a version that is no longer served: its managers are forgotten."""

    def convert(self, obj: Object, api_version: str) -> Object: ...


class Writer(NamedTuple):
    """Who writes, and how: `api_version` is the request's, `now` the wall time in seconds, `ignored` what the writes of
    this (sub)resource never change."""

    manager: str
    api_version: str
    now: float
    subresource: str = ""
    ignored: FieldSet = STATUS

    def writes(self, fields: FieldSet) -> FieldSet:
        """Those of the fields that this writer can change."""
        return fieldsets.without(fields, self.ignored)


class Applied(NamedTuple):
    """`obj` has its new managedFields. `changed`: the configuration changed something besides them."""

    obj: Object
    changed: bool


# ---------------------------------------------------------------- entries


class _Id(NamedTuple):
    """What tells managers apart. `version` is "" for appliers."""

    manager: str
    operation: str
    version: str
    subresource: str


class _Entry(NamedTuple):
    api_version: str
    fields: FieldSet
    time: str | None = None


_Managed = dict[_Id, _Entry]


def _read(entries: Sequence[Object] | None) -> _Managed:
    """The managers of a stored managedFields list."""
    found: _Managed = {}
    for entry in entries or ():
        operation, version = entry["operation"], entry["apiVersion"]
        who = _Id(
            entry.get("manager", ""), operation, "" if operation == "Apply" else version, entry.get("subresource", "")
        )
        found[who] = _Entry(version, entry.get("fieldsV1", LEAF), entry.get("time"))
    return found


def _read_sent(entries: Sequence[Object]) -> _Managed | None:
    """The managers of a list that a client sent; None if it cannot be understood."""
    for entry in entries:
        good = entry.get("operation") in ("Apply", "Update") and entry.get("apiVersion")
        good = good and entry.get("fieldsType") == "FieldsV1"
        if not good or not fieldsets.is_well_formed(entry.get("fieldsV1", LEAF)):
            return None
    return _read(entries)


def _write(managed: _Managed) -> list[Object]:
    """The managedFields list; empty sets manage nothing and are left out."""
    entries = [_entry(who, what) for who, what in managed.items() if what.fields]
    entries.sort(key=_order)
    return entries


def _entry(who: _Id, what: _Entry) -> Object:
    entry: Object = {"manager": who.manager, "operation": who.operation, "apiVersion": what.api_version}
    if what.time:
        entry["time"] = what.time
    entry["fieldsType"] = "FieldsV1"
    entry["fieldsV1"] = what.fields
    if who.subresource:
        entry["subresource"] = who.subresource
    return entry


def _order(entry: Object) -> tuple[str, str, str, str, str]:
    more = (entry["manager"], entry["apiVersion"], entry.get("subresource", ""))
    return (entry["operation"], entry.get("time", ""), *more)


@lru_cache(maxsize=8)
def _stamp(second: int) -> str:
    """The time of an entry; many are written in one second."""
    return rfc3339(second)


def _updater(writer: Writer) -> _Id:
    return _Id(writer.manager or "unknown", "Update", writer.api_version, writer.subresource)


def _cleaned(fields: FieldSet) -> FieldSet:
    """The set without what nobody manages."""
    return fieldsets.difference(fields, _UNMANAGED)


# ---------------------------------------------------------------- create and update


def created(obj: Object, schema: Schema, writer: Writer) -> list[Object]:
    """The managedFields of a new object; call it when defaults are set and before admission changes anything."""
    fields = typed.made(typed.type_of(schema), _managed_part(obj, writer.ignored))
    fields = fields if writer.ignored is STATUS else fieldsets.without(fields, writer.ignored)
    fields.get("f:metadata", {}).pop(".", None)
    if "f:metadata" in fields and not fields["f:metadata"]:
        del fields["f:metadata"]
    if not fields:
        return []
    return [_entry(_updater(writer), _Entry(writer.api_version, fields, _stamp(int(writer.now))))]


def _managed_part(obj: Object, ignored: FieldSet) -> Object:
    """The object without what is managed by nobody or ignored as a whole."""
    part = {
        key: value
        for key, value in obj.items()
        if key not in ("apiVersion", "kind") and ignored.get(f"f:{key}") is not LEAF
    }
    metadata = obj.get("metadata")
    if metadata:
        part["metadata"] = {key: value for key, value in metadata.items() if key not in _UNMANAGED_METADATA}
    return part


def updated(old: Object, new: Object, schema: Schema, writer: Writer, versions: Versions | None = None) -> list[Object]:
    """The managedFields after `old` became `new`. A client may send managedFields of its own in `new`, also to correct
    or (by an empty list) to clear them; those of a subresource's body are not looked at."""
    managed = _known(old["metadata"].get("managedFields"), new["metadata"], bool(writer.subresource))
    if not managed:  # nobody tracks it, or it was just cleared
        return []
    before, after = _managed_part(old, writer.ignored), _managed_part(new, writer.ignored)
    change = _change(typed.type_of(schema), before, after, writer)
    if not change.touched:
        return _write(managed)
    changes = {writer.api_version: change}
    for who, what in list(managed.items()):
        seen = _seen_in(what.api_version, changes, old, new, writer, versions)
        if seen is None:
            del managed[who]
        else:
            managed[who] = what._replace(fields=fieldsets.difference(what.fields, seen.touched))
    taken = fieldsets.union(change.added, change.modified)
    if taken:
        who = _updater(writer)
        mine = managed[who].fields if who in managed else LEAF
        managed[who] = _Entry(writer.api_version, fieldsets.union(mine, taken), _stamp(int(writer.now)))
    return _write(_capped(managed))


class _Change(NamedTuple):
    added: FieldSet
    modified: FieldSet
    touched: FieldSet
    """All that was added, modified or removed."""


def _change(kind: typed.Type, before: Object, after: Object, writer: Writer) -> _Change:
    """What changed of the managed parts of two objects."""
    added, modified, removed = map(writer.writes, typed.compare(kind, before, after))
    return _Change(added, modified, fieldsets.union(fieldsets.union(added, modified), removed))


def _seen_in(
    version: str, changes: dict[str, _Change], old: Object, new: Object, writer: Writer, versions: Versions | None
) -> _Change | None:
    """The change as it looks in another version; None if that version is gone."""
    if version not in changes:
        schema = versions.schema(version) if versions is not None else None
        if versions is None or schema is None:
            return None
        parts = [_managed_part(versions.convert(obj, version), LEAF) for obj in (old, new)]
        changes[version] = _change(typed.type_of(schema), parts[0], parts[1], writer)
    return changes[version]


def _known(old_entries: Any, new_metadata: Object, is_subresource: bool) -> _Managed:
    """The managers to go on from: what the client sent, if it makes sense, else those of the stored object."""
    if not is_subresource and "managedFields" in new_metadata:
        sent = new_metadata["managedFields"]
        if sent is not None and sent in ([], [{}]):
            return {}
        if sent and sent != old_entries and (managed := _read_sent(sent)):
            return managed
    return _read(old_entries)


def _capped(managed: _Managed) -> _Managed:
    """Joins the oldest updaters of a version into one entry while there are more than ten."""
    updaters = sorted(
        (who for who, what in managed.items() if who.operation == "Update" and what.fields),
        key=lambda who: (managed[who].time or "", who),
    )
    count = len(updaters)
    first: dict[str, _Id] = {}
    for who in updaters:
        if count <= _UPDATERS_MAX:
            break
        what = managed[who]
        bucket = _Id(ANCIENT_CHANGES, "Update", what.api_version, "")
        if what.api_version not in first or who == bucket:
            first.setdefault(what.api_version, who)
            continue
        joined = managed.pop(first[what.api_version]) if bucket not in managed else managed[bucket]
        del managed[who]
        managed[bucket] = _Entry(what.api_version, fieldsets.union(what.fields, joined.fields), what.time)
        count -= 1
    return managed


def settled(old: Object, new: Object) -> list[Object]:
    """The managedFields to store for `new`: the old ones, if the objects are equal but for the times in them. An update
    that changes nothing then changes nothing at all."""
    before, after = old["metadata"].get("managedFields") or [], new["metadata"].get("managedFields") or []
    if before == after or len(before) != len(after):
        return after
    if not all(_same_but_time(left, right) for left, right in zip(before, after, strict=True)):
        return after
    return before if _bare(old) == _bare(new) else after


def _same_but_time(left: Object, right: Object) -> bool:
    return {**left, "time": None} == {**right, "time": None}


def _bare(obj: Object) -> Object:
    skipped = ("managedFields", "resourceVersion")
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key not in skipped}}


# ---------------------------------------------------------------- apply


def apply(
    live: Object | None,
    config: Object,
    schema: Schema,
    writer: Writer,
    *,
    kind: str,
    force: bool = False,
    versions: Versions | None = None,
) -> Applied:
    """The live object (None: there is none yet) with the configuration applied. Raises ApiError: 400 for a body that
    cannot be applied, 409 for conflicts, 500 for one that does not fit the schema, as upstream has it.

    The result still has to go through defaults and validation; it shares parts with `live`, nothing with `config`.
    """
    _check(config, kind, writer)
    whole = typed.type_of(schema)
    _check_types(whole, config)
    if live is None:
        return Applied(_first(whole, config, writer), True)
    step = _Apply(whole, _bare_of_entries(live), config, writer, versions, _managers(live, whole, writer))
    try:
        merged, managed = step.run(force)
    except _Conflicts as conflicts:
        if writer.manager != "kubectl":
            raise conflicts.to_error() from None
        left = conflicts.without(_client_side_fields(whole, live, writer.api_version))
        if left.found:
            raise left.to_error() from None
        merged, managed = step.run(True)
    changed = merged != step.live
    if changed and step.who in managed:
        managed[step.who] = managed[step.who]._replace(time=_stamp(int(writer.now)))
    if writer.manager == "kubectl":
        merged = _with_last_applied(merged, config)
        changed = changed or merged != step.live
    return Applied(_with_entries(merged, _write(managed)), changed)


def metadata_of(config: Object) -> Object:
    """The metadata of a configuration that nobody has checked yet."""
    metadata = config.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _check(config: Object, kind: str, writer: Writer) -> None:
    given = tuple(told if isinstance(told := config.get(key), str) else "" for key in ("apiVersion", "kind"))
    if given != (writer.api_version, kind):
        group, version = split_api_version(given[0])
        raise bad_request(f"invalid object type: {group}/{version}, Kind={given[1]}")
    entries = metadata_of(config).get("managedFields")  # upstream sees none in what is no list of objects
    if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
        raise bad_request("metadata.managedFields must be nil")


def _check_types(whole: typed.Type, config: Object) -> None:
    if typed.fits(whole, config):
        return
    found = [f"{fault.path}: {fault.message}" for fault in typed.faults(whole, config)]
    told = found[0] if len(found) == 1 else "\n  ".join(("errors:", *found))
    raise ApiError(500, "", f"failed to create typed patch object ({_go_name(config)}): {told}")


def unconvertible(config: Object, fault: str) -> ApiError:
    """A configuration whose types are those of its schema, and which yet makes no object."""
    why = f"unable to convert unstructured object to {_go_kind(config)}: {fault}"
    return ApiError(500, "", f"failed to convert new object ({_go_name(config)}) to proper version: {why}")


def _go_name(config: Object) -> str:
    metadata = metadata_of(config)
    namespace, name = (told if isinstance(told := metadata.get(key), str) else "" for key in ("namespace", "name"))
    return f"{namespace}/{name}; {_go_kind(config)}"


def _go_kind(config: Object) -> str:
    group, version = split_api_version(config["apiVersion"])
    return f"{group}/{version}, Kind={config['kind']}"


def _first(whole: typed.Type, config: Object, writer: Writer) -> Object:
    """A new object: all that the configuration names is its applier's."""
    obj: Object = {**clone(config), "metadata": clone(config.get("metadata")) or {}}
    fields = _cleaned(writer.writes(typed.applied(whole, config)))
    who = _Id(writer.manager, "Apply", "", writer.subresource)
    entry = _Entry(writer.api_version, fields, _stamp(int(writer.now)))
    if writer.manager == "kubectl":
        obj = _with_last_applied(obj, config)
    return _with_entries(obj, _write({who: entry}))


def _managers(live: Object, whole: typed.Type, writer: Writer) -> _Managed:
    managed = _read(live["metadata"].get("managedFields"))
    if managed:
        return managed
    fields = _cleaned(writer.writes(typed.made(whole, _managed_part(live, writer.ignored))))
    who = _updater(writer)._replace(manager=BEFORE_FIRST_APPLY)
    return {who: _Entry(writer.api_version, fields, _stamp(int(writer.now)))} if fields else {}


def _bare_of_entries(obj: Object) -> Object:
    if "managedFields" not in obj["metadata"]:
        return obj
    return _with_entries(obj, [])


def _with_entries(obj: Object, entries: list[Object]) -> Object:
    metadata = {key: value for key, value in (obj.get("metadata") or {}).items() if key != "managedFields"}
    if entries:
        metadata["managedFields"] = entries
    return {**obj, "metadata": metadata}


class _Apply:
    """One application, which may run twice: first to see the conflicts, then by force."""

    def __init__(
        self,
        whole: typed.Type,
        live: Object,
        config: Object,
        writer: Writer,
        versions: Versions | None,
        managed: _Managed,
    ) -> None:
        self.live = live
        self.who = _Id(writer.manager, "Apply", "", writer.subresource)
        self._whole, self._config, self._writer, self._versions = whole, config, writer, versions
        self._managed = {who: what._replace(fields=self._reconciled(what)) for who, what in managed.items()}

    def _reconciled(self, what: _Entry) -> FieldSet:
        """Only the schemas of custom kinds change while objects live."""
        if self._whole.fixed or what.api_version != self._writer.api_version:
            return what.fields
        return typed.reconciled(self._whole, what.fields, self.live)

    def run(self, force: bool) -> tuple[Object, _Managed]:
        """(the new object without managedFields, the managers); raises _Conflicts."""
        version = self._writer.api_version
        managed = dict(self._managed)
        last = managed.get(self.who)
        named = self._writer.writes(typed.applied(self._whole, self._config))
        managed[self.who] = _Entry(version, named, last.time if last else None)
        merged: Object = typed.merged(self._whole, self.live, self._config)
        if last is not None and (last.api_version != version or fieldsets.difference(last.fields, named)):
            merged = self._pruned(merged, last, managed)
        self._give_way(merged, managed, force)
        mine = managed[self.who]
        managed[self.who] = mine._replace(fields=_cleaned(mine.fields))
        if not managed[self.who].fields:
            del managed[self.who]
        return merged, managed

    def _give_way(self, merged: Object, managed: _Managed, force: bool) -> None:
        """Takes what the configuration changes from the other managers, or raises the conflicts."""
        before, after = _managed_part(self.live, LEAF), _managed_part(merged, LEAF)
        changes = {self._writer.api_version: _change(self._whole, before, after, self._writer)}
        conflicts: dict[_Id, tuple[_Entry, FieldSet]] = {}
        rest: _Managed = {}
        for who, what in managed.items():
            if who == self.who:
                rest[who] = what
                continue
            change = _seen_in(what.api_version, changes, self.live, merged, self._writer, self._versions)
            if change is None:
                continue
            claimed = fieldsets.intersection(what.fields, fieldsets.union(change.added, change.modified))
            if claimed:
                conflicts[who] = (what, claimed)
            rest[who] = what._replace(fields=fieldsets.difference(what.fields, change.touched))
        if conflicts and not force:
            raise _Conflicts(
                [
                    _Conflict(who, what.api_version, path)
                    for who, (what, claimed) in conflicts.items()
                    for path in fieldsets.paths(claimed)
                ]
            )
        managed.clear()
        managed.update(rest)

    # ------------------------------------------------------------ removal of what is no longer applied

    def _pruned(self, merged: Object, last: _Entry, managed: _Managed) -> Object:
        """Without what the applier named last time and names no more, unless somebody else owns it."""
        whole = self._type_in(last.api_version)
        if whole is None:
            return merged
        then = self._in_version(merged, last.api_version)
        pruned = typed.pruned(whole, then, typed.with_named_fields(whole, last.fields))
        pruned = self._with_owned(then, pruned, managed)
        pruned = self._with_dangling(whole, then, pruned, last)
        return self._in_version(pruned, self._writer.api_version)

    def _type_in(self, api_version: str) -> typed.Type | None:
        """The object's type in a version; None if that is gone."""
        if api_version == self._writer.api_version:
            return self._whole
        schema = self._versions.schema(api_version) if self._versions is not None else None
        return typed.type_of(schema) if schema is not None else None

    def _in_version(self, obj: Object, api_version: str) -> Object:
        if obj["apiVersion"] == api_version or self._versions is None:
            return obj
        return self._versions.convert(obj, api_version)

    def _with_owned(self, merged: Object, pruned: Object, managed: _Managed) -> Object:
        """Puts back what any manager (the applier's new configuration too) owns, seen in each manager's version."""
        version = pruned["apiVersion"]
        owned: dict[str, FieldSet] = {version: LEAF}
        for what in managed.values():
            owned[what.api_version] = fieldsets.union(owned.get(what.api_version, LEAF), what.fields)
        for seen_in, fields in owned.items():
            whole = self._type_in(seen_in)
            if whole is None:
                continue
            then, left = self._in_version(merged, seen_in), self._in_version(pruned, seen_in)
            keep = fieldsets.union(_named(whole, left), typed.with_named_fields(whole, fields))
            pruned = typed.pruned(whole, then, fieldsets.difference(_named(whole, then), keep))
        return self._in_version(pruned, version)

    def _with_dangling(self, whole: typed.Type, merged: Object, pruned: Object, last: _Entry) -> Object:
        """Puts back what nobody owns but the applier did not own either."""
        gone = fieldsets.difference(_named(whole, merged), _named(whole, pruned))
        gone = fieldsets.intersection(gone, typed.with_named_fields(whole, last.fields))
        left: Object = typed.pruned(whole, merged, gone)
        return left


def _named(whole: typed.Type, obj: Object) -> FieldSet:
    return typed.with_named_fields(whole, typed.applied(whole, obj))


# ---------------------------------------------------------------- conflicts


class _Conflict(NamedTuple):
    who: _Id
    api_version: str
    path: tuple[str, ...]

    def manager(self) -> str:
        """The manager as messages name it."""
        told = quote(self.who.manager)
        if self.who.subresource:
            told += f" with subresource {quote(self.who.subresource)}"
        return f"{told} using {self.api_version}" if self.who.operation == "Update" else told


class _Conflicts(Exception):
    """Fields that would change and that others own."""

    def __init__(self, found: list[_Conflict]) -> None:
        self.found = sorted(found, key=lambda conflict: (fieldsets.path_text(conflict.path), conflict.who))

    def without(self, allowed: FieldSet) -> _Conflicts:
        return _Conflicts([conflict for conflict in self.found if not fieldsets.has(allowed, conflict.path)])

    def to_error(self) -> ApiError:
        causes = [
            Cause("FieldManagerConflict", f"conflict with {each.manager()}", fieldsets.path_text(each.path)).to_dict()
            for each in self.found
        ]
        return ApiError(409, "Conflict", self._message(), details={"causes": causes})

    def _message(self) -> str:
        if len(self.found) == 1:
            one = self.found[0]
            path = fieldsets.path_text(one.path)
            return f"Apply failed with 1 conflict: conflict with {one.manager()}: {path}"
        by_manager: dict[str, list[str]] = {}
        for each in sorted(self.found, key=lambda conflict: conflict.who):
            by_manager.setdefault(each.manager(), []).append(f"- {fieldsets.path_text(each.path)}")
        lines = [line for manager, told in by_manager.items() for line in (f"conflicts with {manager}:", *told)]
        return f"Apply failed with {len(self.found)} conflicts: " + "\n".join(lines)


# ---------------------------------------------------------------- kubectl's client-side apply


def _client_side_fields(whole: typed.Type, live: Object, api_version: str) -> FieldSet:
    """The fields of the last-applied annotation that are still as it says."""
    text = (live["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    try:
        last = orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        return LEAF
    if not isinstance(last, dict) or last.get("apiVersion") != api_version:
        return LEAF
    comparison = typed.compare(whole, last, live)
    fields = typed.applied(whole, last)
    for part in comparison:
        fields = fieldsets.difference(fields, part)
    return fields


def _with_last_applied(obj: Object, config: Object) -> Object:
    """The annotation follows what kubectl applies, where there is one already."""
    annotations = obj["metadata"].get("annotations") or {}
    if LAST_APPLIED not in annotations:
        return obj
    metadata = dict(config.get("metadata") or {})
    if LAST_APPLIED in (metadata.get("annotations") or {}):
        told = {key: value for key, value in metadata["annotations"].items() if key != LAST_APPLIED}
        metadata["annotations"] = told
        if not told:
            del metadata["annotations"]
    text = json.dumps({**config, "metadata": metadata}, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    annotations = {**annotations, LAST_APPLIED: text + "\n"}
    if meta.validate_annotations(annotations, "metadata.annotations"):
        annotations[LAST_APPLIED] = ""
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}


# ---------------------------------------------------------------- scale

SCALE_VERSION = "autoscaling/v1"
_PATH_IN_SCALE = ("f:spec", "f:replicas")
_SCALE_REPLICAS = fieldsets.of_path(_PATH_IN_SCALE)

Replicas = dict[str, tuple[str, ...]]
"""Where a resource has its replicas, by its versions: {"apps/v1": ("f:spec", "f:replicas")}."""


def scale_entries(entries: Sequence[Object], replicas: Replicas) -> list[Object]:
    """The entries of a resource as its Scale has them: who manages the one's replicas manages the other's."""
    managed: _Managed = {}
    for who, what in _read(entries).items():
        path = replicas.get(what.api_version)
        if path and fieldsets.has(what.fields, path):
            version = SCALE_VERSION if who.version else ""
            managed[who._replace(version=version)] = _Entry(SCALE_VERSION, _SCALE_REPLICAS, what.time)
    return _write(managed)


def entries_after_scale(
    entries: Sequence[Object], scaled: Sequence[Object], replicas: Replicas, api_version: str
) -> list[Object]:
    """The entries of a resource after its Scale was written with the result `scaled`. `api_version` is that of the
    request to the resource.

    Updaters are known by their version, which in the Scale is another: as upstream does, the replicas are taken from
    them and given back in an entry beside theirs, of which the next writer sees one only."""
    left = {who for who, what in _read(scaled).items() if fieldsets.has(what.fields, _PATH_IN_SCALE)}
    managed: _Managed = {}
    for who, what in _read(entries).items():
        path = replicas.get(what.api_version)
        if path is None:
            continue
        if fieldsets.has(what.fields, path):
            if who in left:
                left.discard(who)
            else:
                what = what._replace(fields=fieldsets.difference(what.fields, fieldsets.of_path(path)))
        managed[who] = what
    for who in left:
        managed[who] = _Entry(api_version, fieldsets.of_path(replicas[api_version]))
    return _write(managed)
