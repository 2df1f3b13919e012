"""Tables and partial objects: what the server answers when a client asks for `as=Table` or `as=PartialObjectMetadata`.

Rules:
  1. Columns are upstream's (generated facts for built-in kinds, additionalPrinterColumns for custom ones), and so is
     the content of every cell. kubectl prints them as they are.
  2. Objects come with `metadata.resourceVersion` set, in any version: cells are made of the storage version. With
     `include="Object"` rows show them as they come, or `objects` instead (the same in the version asked for).
  3. In a watch each event is a table of one row, and only the first tells the columns (`headers=False` after it).

The cells of each kind are made in table_workloads and table_cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from fastkube.api import conversion, jsonpath, table_cluster, table_workloads
from fastkube.api.catalog import ResourceType
from fastkube.api.strategic import go_text
from fastkube.api.table_text import UNKNOWN, Cell, Object, Printer, human_duration, name
from fastkube.clock import parse_rfc3339

_PRINTERS: dict[str, Printer] = {**table_workloads.PRINTERS, **table_cluster.PRINTERS}
_SCALE = (
    ("Name", "string", "", 0),
    ("Desired", "integer", "", 0),
    ("Available", "integer", "", 0),
    ("Age", "string", "", 0),
)
_CONVERTED = ("deprecated.daemonset.template.generation",)
_AGE = ({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},)


def table(
    rtype: ResourceType,
    version: str,
    items: Sequence[Object],
    include: str = "Metadata",
    table_version: str = "v1",
    *,
    metadata: Object | None = None,
    headers: bool = True,
    objects: Sequence[Object] | None = None,
    now: float,
) -> Object:
    """The items as a meta.k8s.io Table. `metadata` is the list's; a table of one object carries that object's
    resourceVersion. `include` is the includeObject parameter: Metadata, None or Object. Ages are told as of `now`
    (seconds since the epoch)."""
    if metadata is None:
        revisions = [item["metadata"].get("resourceVersion") for item in items]
        metadata = {"resourceVersion": revisions[0]} if len(revisions) == 1 and revisions[0] else {}
    pairs = list(zip(items, items if objects is None else objects, strict=True))
    if rtype.kind == "FlowSchema":
        pairs.sort(key=lambda pair: ((pair[0].get("spec") or {}).get("matchingPrecedence") or 0, name(pair[0])))
    rows = [
        _row(cells(rtype, version, item, now), item, _embedded(shown, include, table_version)) for item, shown in pairs
    ]
    is_scale = len(items) == 1 and items[0].get("kind") == "Scale"
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{table_version}",
        "metadata": metadata,
        "columnDefinitions": (_scale_columns() if is_scale else columns(rtype, version)) if headers else None,
        "rows": rows or _no_rows(rtype, version),
    }


def _no_rows(rtype: ResourceType, version: str) -> list[Object] | None:
    """Kinds without columns of their own go through upstream's default printer, whose list of rows begins as nil."""
    return None if [column["name"] for column in columns(rtype, version)] == ["Name", "Created At"] else []


def _row(told: list[Cell], item: Object, embedded: Object | None) -> Object:
    row: Object = {"cells": told}
    if item.get("kind") == "Pod" and (conditions := table_workloads.pod_conditions(item)):
        row["conditions"] = conditions
    row["object"] = embedded
    return row


def _embedded(obj: Object, include: str, version: str) -> Object | None:
    if include == "None":
        return None
    return obj if include == "Object" else _without_converted(partial_metadata(obj, version))


def _without_converted(partial: Object) -> Object:
    """A row shows the metadata of the internal form, which has fields for what v1 keeps in annotations."""
    annotations = partial["metadata"].get("annotations") or {}
    if not any(key in annotations for key in _CONVERTED):
        return partial
    metadata = dict(partial["metadata"])
    metadata["annotations"] = {key: text for key, text in annotations.items() if key not in _CONVERTED}
    if not metadata["annotations"]:
        del metadata["annotations"]
    return {**partial, "metadata": metadata}


def partial_metadata(obj: Object, version: str = "v1") -> Object:
    """The object without all that is not metadata."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": obj["metadata"],
    }


def partial_metadata_list(items: Iterable[Object], metadata: Object, version: str = "v1") -> Object:
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": metadata,
        "items": [partial_metadata(item, version) for item in items] or None,  # as Go's nil slice
    }


# ---------------------------------------------------------------- columns and cells


@lru_cache(maxsize=512)
def columns(rtype: ResourceType, version: str) -> list[Object]:
    """The columnDefinitions of a kind. The list is shared: callers must not change it."""
    if not rtype.custom:
        return [_column(rtype.kind, *told) for told in rtype.columns[version]]
    custom = [
        {
            "name": each["name"],
            "type": each["type"],
            "format": each.get("format", ""),
            "description": each.get("description") or f"The value at {each['jsonPath']}.",
            "priority": each.get("priority", 0),
        }
        for each in _custom_columns(rtype, version)
    ]
    return [_column(rtype.kind, "Name", "string", "name", 0), *custom]


@lru_cache(maxsize=1)
def _scale_columns() -> list[Object]:
    return [_column("Scale", *told) for told in _SCALE]


def _column(kind: str, title: str, of_type: str, form: str, priority: int) -> Object:
    return {
        "name": title,
        "type": of_type,
        "format": form,
        "description": f"{title} of the {kind}.",
        "priority": priority,
    }


def _custom_columns(rtype: ResourceType, version: str) -> Sequence[Object]:
    """`extra["columns"]` of a custom type holds the additionalPrinterColumns of each of its versions."""
    found: Sequence[Object] = rtype.extra.get("columns", {}).get(version) or _AGE
    return found


def cells(rtype: ResourceType, version: str, obj: Object, now: float) -> list[Cell]:
    """One cell for each column."""
    if rtype.custom and obj.get("kind") != "Scale":
        return [name(obj), *(_custom_cell(column, obj, now) for column in _custom_columns(rtype, version))]
    if obj.get("apiVersion", rtype.storage_api_version) != rtype.storage_api_version and obj.get("kind") != "Scale":
        obj = conversion.convert(rtype, obj, rtype.storage_api_version)
    return _PRINTERS.get(obj.get("kind", ""), table_cluster.dated)(obj, now)


def _custom_cell(column: Object, obj: Object, now: float) -> Cell:
    """The first value that the column's path finds, if it is of the column's type."""
    found = jsonpath.compile(column["jsonPath"]).find(obj)
    if not found:
        return None
    value, kind = found[0], column["type"]
    if kind == "string":
        return "null" if value is None else go_text(value)
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if kind == "date":
        return _date(value, now) if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if kind == "integer" else float(value) if kind == "number" else None


def _date(text: str, now: float) -> str:
    if not text:
        return UNKNOWN
    try:
        return human_duration(now - parse_rfc3339(text))
    except ValueError:
        return "<invalid>"
