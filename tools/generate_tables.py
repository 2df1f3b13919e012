#!/usr/bin/env python3
"""Writes fastkube/api/generated/: what the built-in kinds are, as compact JSON that the server loads lazily.

    tools/generate_tables.py --facts DIR            write the tables
    tools/generate_tables.py                        write schemas.json anew from the rest (go_types.json changed)
    tools/generate_tables.py [--facts DIR] --check  exit 1 and say which tables differ from what would be written

Sources: the JSON schemas of one Kubernetes release in the PyPI package `kubernetes-validate`, the facts of a running
server in DIR (discovery, printer-columns, selectable-fields, protobuf, bootstrap; discovery-gated and protobuf-gated
for what is served only with feature gates; .json each), and go_types.json beside this file, which the Go program in
gotypes/ prints. Nothing here runs in the server, and users need none of it.

| table          | what it holds |
| -------------- | --- |
| resources.json | a row for each resource: names, scope, verbs, versions, subresources, columns, field selectors |
| schemas.json   | a structural schema for each type that a served kind reaches, noted as in api/schema.py |
| protobuf.json  | for each of these types the fields of its wire message: [JSON name, number, type, label] |
| bootstrap.json | the objects that a fresh server makes |
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parents[1] / "fastkube" / "api" / "generated"
GO_TYPES = Path(__file__).with_name("go_types.json")
RELEASE = "v1.36.0-local"

DEFAULTS = {  # of the keys of lists that merge by key; an item may leave such a key out
    "core.v1.ContainerPort": {"protocol": "TCP"},
    "core.v1.ServicePort": {"protocol": "TCP"},
}
MARKS = dict.fromkeys(
    (
        "admissionregistration.v1.MutatingWebhook.rules",
        "admissionregistration.v1.ValidatingWebhook.rules",
        "autoscaling.v2.HPAScalingRules.policies",
    ),
    "*",
)
"""Where an empty list is not the same as none: to upstream's defaults, or to its comparison of two specs."""

PACKAGES = {  # prefix of an OpenAPI name, prefix of a protobuf name
    "io.k8s.api.": "k8s.io.api.",
    "io.k8s.apimachinery.pkg.apis.": "k8s.io.apimachinery.pkg.apis.",
    "io.k8s.apiextensions-apiserver.pkg.apis.": "k8s.io.apiextensions_apiserver.pkg.apis.",
    "io.k8s.kube-aggregator.pkg.apis.": "k8s.io.kube_aggregator.pkg.apis.",
    "io.k8s.apimachinery.pkg.": "k8s.io.apimachinery.pkg.",
}
SCALARS = {
    "util.intstr.IntOrString": "x",
    "api.resource.Quantity": "q",
    "meta.v1.Time": "t",
    "meta.v1.MicroTime": "u",
    "meta.v1.Duration": "D",
    "meta.v1.FieldsV1": "f",
    "runtime.RawExtension": "j",
    "apiextensions.v1.JSON": "j",
}
UNIONS = {
    "apiextensions.v1.JSONSchemaPropsOrArray": "A@apiextensions.v1.JSONSchemaProps",
    "apiextensions.v1.JSONSchemaPropsOrBool": "B@apiextensions.v1.JSONSchemaProps",
    "apiextensions.v1.JSONSchemaPropsOrStringArray": "S@apiextensions.v1.JSONSchemaProps",
}
EXTENSIONS = {
    "x-kubernetes-list-type": "listType",
    "x-kubernetes-list-map-keys": "listKeys",
    "x-kubernetes-patch-strategy": "patchStrategy",
    "x-kubernetes-patch-merge-key": "patchKey",
    "x-kubernetes-map-type": "mapType",
}
ALWAYS_WANTED = (
    "meta.v1.Status",
    "meta.v1.DeleteOptions",
    "meta.v1.WatchEvent",
    "meta.v1.ObjectMeta",
    "meta.v1.ListMeta",
)
WIRE_ROOTS = (  # kinds that are answered, never stored; and what envelopes are made of
    "apidiscovery.v2.APIGroupDiscoveryList",
    "meta.v1.APIGroupList",
    "meta.v1.APIResourceList",
    "meta.v1.APIVersions",
    "meta.v1.PartialObjectMetadataList",
    "runtime.Unknown",
)
SHARED_PREFIX = {"events.k8s.io/events": "events"}  # stored with the core group's events
STORED_AS = {"events.k8s.io/events": ("", "v1"), "autoscaling/horizontalpodautoscalers": ("autoscaling", "v2")}


def short(name: str, column: int = 0) -> str:
    """`io.k8s.api.core.v1.Pod` (or the protobuf name, column 1) as `core.v1.Pod`."""
    for pair in PACKAGES.items():
        if name.startswith(pair[column]):
            return name.removeprefix(pair[column])
    return name


def definitions() -> dict[str, Any]:
    """The release's type definitions by short name."""
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or spec.origin is None:
        raise SystemExit("the package kubernetes-validate is needed: pip install 'fastkube[explain]'")
    path = Path(spec.origin).parent / "kubernetes-json-schema" / RELEASE / "_definitions.json"
    return {short(name): schema for name, schema in json.loads(path.read_text())["$defs"].items()}


def reference(schema: dict[str, Any]) -> str | None:
    return short(schema["$ref"].rsplit("/", 1)[-1]) if "$ref" in schema else None


def nested(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for child in (schema.get("properties") or {}).values():
        yield from nested(child)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nested(schema[key])


def reachable(types: dict[str, Any], roots: list[str]) -> list[str]:
    """All struct types that the roots lead to, sorted."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in found or name in SCALARS or name in UNIONS:
            waiting += [UNIONS[name][2:]] if name in UNIONS else []
            continue
        found.add(name)
        waiting += [target for part in nested(types[name]) if (target := reference(part))]
    return sorted(found)


# ---------------------------------------------------------------- schemas.json


def code(schema: dict[str, Any], integer: str) -> str:
    """The notation of one type; `integer` is what the wire format says of a number without a format."""
    target = reference(schema)
    if target:
        return SCALARS.get(target) or UNIONS.get(target) or "@" + target
    kinds = schema.get("type", "object")
    kind = next(k for k in kinds if k != "null") if isinstance(kinds, list) else kinds
    if kind == "array":
        return "[" + code(schema["items"], integer)
    if kind == "object":
        return "{" + code(schema["additionalProperties"], integer) if "additionalProperties" in schema else "j"
    if kind == "string":
        return {"byte": "y", "date-time": "t"}.get(schema.get("format", ""), "s")
    if kind == "integer":
        return {"int32": "i", "int64": "l"}.get(schema.get("format", ""), integer)
    return {"boolean": "b", "number": "d"}[kind]


def mark(fact: list[str], kind: str, required: bool) -> str:
    """`*`: a pointer, `!`: always written, `0`: always written, as null when there is none.

    `fact` is what go_types.json tells of the field. It decides what a client reads back: `hostNetwork: false`
    disappears (a bool with omitempty), `hostUsers: false` stays (a pointer); a container always shows `resources: {}`
    (omitempty does not leave out a struct), a Role without rules `rules: null`.
    """
    letter = kind[0]
    if not fact:  # a list of objects, or a type that is not Go's
        return "!" if required and letter in "sbildxq@" else ""
    pointer, left_out = fact[0].startswith("*"), fact[1]
    if letter in "sbildqx":
        by_value = "" if left_out and letter in "sbild" else "!"
        return ("*" if left_out else "0") if pointer else by_value
    if letter == "@" and not pointer:
        return "" if "omitzero" in left_out else "!"
    if letter in "tu" and not pointer:
        return "" if "omitzero" in left_out else "0"
    if letter in "@tu[{y":
        return "" if left_out else "0"
    return "0" if letter == "j" and not pointer and "omitzero" not in left_out else ""


def go_type(kind: str) -> str:
    """What Go calls a type unless it has a name of its own."""
    if kind[0] == "@":
        return ".".join(kind.split(".")[-2:])
    if kind[0] in "[{":
        items = go_type(kind[1:])
        return items and {"[": "[]", "{": "map[string]"}[kind[0]] + items
    plain = {"s": "string", "b": "bool", "i": "int32", "l": "int64", "d": "float64", "y": "[]uint8"}
    return {**plain, "q": "resource.Quantity", "x": "intstr.IntOrString", "t": "v1.Time"}.get(kind[0], "")


def schema_table(types: dict[str, Any], names: list[str], messages: dict[str, list[list[Any]]]) -> dict[str, Any]:
    table = {}
    facts = json.loads(GO_TYPES.read_text())
    for name in names:
        schema = types[name]
        wire = {row[0]: row[2] for row in messages.get(name, [])}
        required = set(schema.get("required", ()))
        fields: dict[str, Any] = {}
        declared = facts.get(name, {})
        properties = schema.get("properties") or {}
        for field in (*(each for each in declared if each in properties), *sorted({*properties} - {*declared})):
            part = properties[field]
            kind = code(part, "i" if wire.get(field) == "int32" else "l")
            fact = declared.get(field, [])
            suffix = MARKS.get(f"{name}.{field}") or mark(fact, kind, field in required)
            extras = {EXTENSIONS[key]: value for key, value in part.items() if key in EXTENSIONS}
            if field in DEFAULTS.get(name, {}):
                extras["default"] = DEFAULTS[name][field]
            if fact and kind[0] in "sbildy@[{" and go_type(kind) != fact[0].lstrip("*"):
                extras["go"] = fact[0].lstrip("*")
            if fact[2:]:
                extras["via"] = fact[2:]
            whole = kind + suffix
            fields[field] = [whole, extras] if extras else whole
        row: dict[str, Any] = {"fields": fields} if "properties" in schema else {}
        if required:
            row["required"] = sorted(required)
        if "x-kubernetes-map-type" in schema:
            row["mapType"] = schema["x-kubernetes-map-type"]
        kinds = [[k["group"], k["version"], k["kind"]] for k in schema.get("x-kubernetes-group-version-kind", ())]
        if kinds:
            row["kinds"] = kinds
        table[name] = row
    return table


# ---------------------------------------------------------------- protobuf.json


def wire_type(name: str) -> str:
    if name.startswith("map<"):
        key, value = name[4:-1].split(",")
        return f"map<{key},{short(value, 1)}>"
    return short(name, 1)


def all_messages(facts: dict[str, Any]) -> dict[str, list[list[Any]]]:
    found = {}
    for package, messages in facts["packages"].items():
        for name, rows in messages.items():
            full = short(f"{package}.{name}", 1)
            found[full] = [[field, number, wire_type(kind), label] for field, number, kind, label in rows]
    return found


def flat_messages(messages: dict[str, list[list[Any]]]) -> dict[str, list[list[Any]]]:
    """Each message with the fields of its inline ones among its own: JSON's view of them."""

    def rows(name: str) -> Iterator[list[Any]]:
        for row in messages.get(name, []):
            if row[3] == "inline":
                yield from rows(row[2])
            else:
                yield row

    return {name: list(rows(name)) for name in messages}


def protobuf_table(messages: dict[str, list[list[Any]]], roots: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in messages or name in found:
            continue
        found[name] = messages[name]
        for _, _, kind, _ in messages[name]:
            waiting.append(kind[4:-1].split(",")[1] if kind.startswith("map<") else kind)
    return dict(sorted(found.items()))


# ---------------------------------------------------------------- resources.json


def resource_rows(facts: Path) -> list[dict[str, Any]]:
    discovery = read(facts, "discovery")
    columns = {
        (row["group"], row["version"], row["resource"]): row["columns"] for row in read(facts, "printer-columns")
    }
    fields = {
        (row["group"], row["version"], row["resource"]): row["fields"] for row in read(facts, "selectable-fields")
    }
    gated = [group for groups in read(facts, "discovery-gated").values() for group in groups["items"]]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for group in (*discovery["api"]["items"], *discovery["apis"]["items"], *gated):
        name = group["metadata"].get("name", "")
        for version in group["versions"]:
            for found in version["resources"]:
                row = rows.setdefault((name, found["resource"]), resource_row(name, found))
                if group in gated:
                    row["gated"] = f"{name}/{version['version']}"
                    row["selectable"] = ["metadata.name", "metadata.namespace"]
                place = (name, version["version"], found["resource"])
                row["versions"].append(version["version"])
                if place in columns:
                    row["columns"][version["version"]] = columns[place]
                row["selectable"] = sorted({*row["selectable"], *fields.get(place, ())})
    for row in rows.values():
        where = f"{row['group']}/{row['resource']}"
        row["storage"] = list(STORED_AS.get(where, (row["group"], row["versions"][0])))
        folder = row["resource"] if not row["group"] else f"{row['group']}/{row['resource']}"
        row["prefix"] = f"/registry/{SHARED_PREFIX.get(where, folder)}/"
    return list(rows.values())


def resource_row(group: str, found: dict[str, Any]) -> dict[str, Any]:
    kind = found["responseKind"]
    row: dict[str, Any] = {
        "group": group,
        "resource": found["resource"],
        "kind": kind["kind"],
        "singular": found["singularResource"],
        "namespaced": found["scope"] == "Namespaced",
        "shortNames": found.get("shortNames", []),
        "categories": found.get("categories", []),
        "verbs": found["verbs"],
        "versions": [],
        "subresources": [
            [part["subresource"], *(part["responseKind"][key] for key in ("kind", "group", "version")), part["verbs"]]
            for part in found.get("subresources", ())
        ],
        "selectable": [],
        "columns": {},
    }
    return row


# ---------------------------------------------------------------- all


def read(facts: Path, name: str) -> Any:
    return json.loads((facts / f"{name}.json").read_text())


def roots_of(rows: list[dict[str, Any]], types: dict[str, Any]) -> list[str]:
    """The types of all kinds served, of their lists and of their subresources."""
    by_kind = {
        (k["group"], k["version"], k["kind"]): name
        for name, schema in types.items()
        for k in schema.get("x-kubernetes-group-version-kind", ())
    }
    roots = list(ALWAYS_WANTED)
    for row in rows:
        for version in row["versions"]:
            kinds = [(row["group"], version, row["kind"]), (row["group"], version, row["kind"] + "List")]
            kinds += [(sub[2] or row["group"], sub[3] or version, sub[1]) for sub in row["subresources"]]
            roots += [by_kind[kind] for kind in kinds if kind in by_kind]
    return sorted(set(roots))


def messages_of(facts: Path) -> dict[str, list[list[Any]]]:
    return all_messages(read(facts, "protobuf")) | all_messages(read(facts, "protobuf-gated"))


def tables(facts: Path | None) -> dict[str, Any]:
    """The tables by file name: all of them, or without facts the one that follows from the others."""
    types = definitions()
    rows = resource_rows(facts) if facts else read(OUT, "resources")
    messages = messages_of(facts) if facts else read(OUT, "protobuf")
    roots = roots_of(rows, types)
    schemas = {"schemas.json": schema_table(types, reachable(types, roots), flat_messages(messages))}
    if facts is None:
        return schemas
    wire_roots = [*roots, *WIRE_ROOTS]
    return {
        **schemas,
        "resources.json": rows,
        "protobuf.json": protobuf_table(messages, wire_roots),
        "bootstrap.json": read(facts, "bootstrap"),
    }


def render(table: Any) -> str:
    """One entry a line, so that a change shows as a small difference."""
    compact = {"separators": (",", ":"), "ensure_ascii": False}
    if isinstance(table, list):
        return "[\n" + ",\n".join(json.dumps(row, **compact) for row in table) + "\n]\n"
    lines = (json.dumps(key) + ":" + json.dumps(value, **compact) for key, value in table.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--facts", type=Path, help="folder with the facts of a running server")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a table would change")
    options = parser.parse_args()
    different = []
    for name, table in tables(options.facts).items():
        text, path = render(table), OUT / name
        if options.check:
            if not path.exists() or path.read_text() != text:
                different.append(name)
        else:
            OUT.mkdir(exist_ok=True)
            path.write_text(text)
    if different:
        remedy = "tools/generate_tables.py" + (f" --facts {options.facts}" if options.facts else "")
        print(f"{', '.join(different)}: not what the sources say; run {remedy}")
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main())
