"""What a group of watchers was sent, kept for those of them who are late (streams.py): the same bytes for all."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

_BYTES_MAX = 4 * 1024 * 1024


class Block(NamedTuple):
    """What was sent at once: everything up to the revision `end` that a block before it has not."""

    end: int
    data: bytes


class Kept:
    """Up to `_BYTES_MAX` of the newest blocks; of what was up to the revision `lacks` nothing is here."""

    __slots__ = ("_blocks", "_size", "lacks")

    def __init__(self) -> None:
        self._blocks: deque[Block] = deque()
        self._size = 0
        self.lacks = 0

    def add(self, block: Block) -> None:
        self._blocks.append(block)
        self._size += len(block.data)
        while self._size > _BYTES_MAX:
            gone = self._blocks.popleft()
            self._size -= len(gone.data)
            self.lacks = gone.end

    def forget(self, revision: int) -> None:
        """Nothing up to this revision will be asked for, or may be."""
        self._blocks.clear()
        self._size, self.lacks = 0, revision

    def after(self, position: int) -> Block | None:
        """The first block that is new to whoever was sent everything up to there."""
        return next((block for block in self._blocks if block.end > position), None)
