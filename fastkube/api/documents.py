"""Files of objects: manifests, kubectl's output, snapshots. JSON, JSON lines or YAML, each also compressed (`.gz`)."""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import orjson

from fastkube.api import yaml

log = logging.getLogger(__name__)
Object = dict[str, Any]

_DOCUMENT = re.compile(rb"^---[ \t]*(?:#.*)?$", re.MULTILINE)
_YAML = (".yaml", ".yml")
_SUFFIXES = (".json", ".jsonl", *_YAML)
_GZIP_WINDOW = 31
"""zlib's word for gzip's framing."""


class DocumentError(ValueError):
    """A file that holds no Kubernetes objects."""


def _suffix(file: Path) -> str:
    return file.with_suffix("").suffix if file.suffix == ".gz" else file.suffix


def read_files(paths: Iterable[str | Path]) -> list[Object]:
    """The objects of files, and of all files of folders in the order of their names: single ones, lists of any kind.

    Raises OSError and DocumentError.
    """
    found: list[Object] = []
    for each in map(Path, paths):
        files = sorted(file for file in each.rglob("*") if _suffix(file) in _SUFFIXES) if each.is_dir() else [each]
        for file in files:
            for document in _documents(file):
                found += _objects(document, file)
    return found


def _documents(file: Path) -> Iterator[Any]:
    data = _contents(file)
    try:
        if data.lstrip()[:1] == b"{":
            yield from _json(data, file)
            return
        for text in _DOCUMENT.split(data):
            document, _ = yaml.load(text)
            if document is not None:
                yield document
    except ValueError as error:
        raise DocumentError(f"{file}: {error}") from error


def _contents(file: Path) -> bytes:
    data = file.read_bytes()
    if file.suffix != ".gz":
        return data
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        text = unpacker.decompress(data) + unpacker.flush()
    except zlib.error as error:
        raise DocumentError(f"{file}: {error}") from error
    if unpacker.eof:
        return text
    log.warning("%s was not closed in order: it is read up to its last whole line", file)
    return text[: text.rfind(b"\n") + 1]


def _json(data: bytes, file: Path) -> Iterator[Any]:
    """One value, or one on each line; a last line whose writer was killed in the middle of it is left out."""
    try:
        yield orjson.loads(data)
        return
    except orjson.JSONDecodeError as error:
        lines = [line for line in data.splitlines() if line.strip()]
        try:
            first = orjson.loads(lines[0])
        except orjson.JSONDecodeError:
            raise error from None
    yield first
    for number, line in enumerate(lines[1:], 2):
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError as error:
            if number == len(lines) and not data.endswith(b"\n"):
                log.warning("%s ends in the middle of line %d, which is left out", file, number)
                return
            raise ValueError(f"line {number}: {error}") from None


def _objects(document: Any, file: Path) -> Iterator[Object]:
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        raise DocumentError(f"{file}: an object with a kind is expected")
    kind = document["kind"]
    if not kind.endswith("List") or "items" not in document:
        yield document
        return
    for item in document["items"] or ():
        if "kind" in item:
            yield from _objects(item, file)
        else:  # items of a typed list carry neither
            yield {"apiVersion": document.get("apiVersion", "v1"), "kind": kind.removesuffix("List"), **item}


class Writer:
    """Objects to a file: YAML documents by the suffix `.yaml`, else JSON lines; compressed by `.gz`.

    What `flush` has written is readable although the file was never closed. `private`: only its owner may read it.
    """

    def __init__(self, path: Path, *, append: bool = False, private: bool = False) -> None:
        """`append` is for JSON lines only, and drops a last line that was not finished. Raises OSError, ValueError."""
        self.path = path
        self._yaml = _suffix(path) in _YAML
        self._packer = zlib.compressobj(wbits=_GZIP_WINDOW) if path.suffix == ".gz" else None
        if append and (self._yaml or self._packer):
            raise ValueError(f"{path}: only a file of JSON lines can be gone on with")
        self._file: IO[bytes] = path.open("r+b" if append else "wb")
        if append:
            data = self._file.read()
            self._file.seek(data.rfind(b"\n") + 1)
            self._file.truncate()
        if private:
            path.chmod(0o600)

    def write(self, obj: Object) -> None:
        if self._yaml:
            data = b"---\n" + yaml.dump(obj)
        else:
            data = orjson.dumps(obj, option=orjson.OPT_APPEND_NEWLINE)
        self._file.write(self._packer.compress(data) if self._packer else data)

    def flush(self) -> None:
        if self._packer:
            self._file.write(self._packer.flush(zlib.Z_SYNC_FLUSH))
        self._file.flush()

    def close(self) -> None:
        if self._packer:
            self._file.write(self._packer.flush())
        self._file.close()
