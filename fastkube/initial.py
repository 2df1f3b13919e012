"""What a control plane has from the beginning: a snapshot of another cluster (`--restore`), manifests (`--manifests`).

A snapshot is restored before the scheduler and the controllers run, so that they find a whole cluster and nothing to
mend in half of one; manifests are made when everything runs, since they count on it (a namespace's ServiceAccount).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastkube.cluster import Server, StartError, StoreOptions, UpOptions, store_path

if TYPE_CHECKING:
    from fastkube.recording.load import Report

Object = dict[str, Any]

log = logging.getLogger(__name__)


class Contents:
    """The objects of the files, read before anything starts."""

    def __init__(self, options: UpOptions, store: StoreOptions) -> None:
        """Raises StartError for files that cannot be read, and for a snapshot where a cluster is already."""
        if options.restore and store_path(store.data_dir).exists():
            raise StartError(f"restore: there is a cluster in {store.data_dir} already")
        self._snapshot = _read([options.restore]) if options.restore else []
        self._manifests = _read(options.manifests) if options.manifests else []

    async def restore(self, server: Server) -> None:
        """What of a snapshot cannot be made is told, and the rest is there."""
        if self._snapshot:
            report = await _load(server, self._snapshot)
            log.warning("restored: %s", report.to_text())

    async def load(self, server: Server) -> None:
        """Raises StartError when a manifest cannot be made."""
        if not self._manifests:
            return
        report = await _load(server, self._manifests)
        if report.failures:
            raise StartError("; ".join(f"manifests: {each.what}: {each.message}" for each in report.failures))


def _read(paths: list[str] | tuple[str, ...]) -> list[Object]:
    from fastkube.api.documents import read_files
    from fastkube.recording.objects import split

    try:
        missing = [path for path in paths if not Path(path).exists()]
        if missing:
            raise StartError(f"{missing[0]}: No such file or directory")
        state, _ = split(read_files(paths))
    except (OSError, ValueError) as error:
        raise StartError(str(error)) from error
    return state


async def _load(server: Server, objects: list[Object]) -> Report:
    from fastkube.recording.load import Loader

    async with server.client() as client:
        return await Loader(client).load(objects)
