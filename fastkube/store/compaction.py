"""Regular compaction: what is older than an interval is given up, as kube-apiserver has it of etcd.

A watch or a list that asks for a revision from before that is told so (410), so clients have at least one interval, and
at most two, to come back in. Every server of a replicated store does it; whoever is later finds it done.
"""

from __future__ import annotations

import contextlib
import logging

from fastkube.clock import Clock
from fastkube.store.errors import Compacted, StoreError
from fastkube.store.store import Store

log = logging.getLogger(__name__)


async def compact_regularly(store: Store, clock: Clock, interval_s: float) -> None:
    """Until cancelled. A compaction that fails is tried again with the next one."""
    old = store.revision
    while True:
        await clock.sleep(interval_s)
        now = store.revision
        try:
            if old > store.compacted:
                with contextlib.suppress(Compacted):
                    await store.compact(old)
        except StoreError as problem:
            log.warning("compaction at revision %d: %s", old, problem)
        old = now
