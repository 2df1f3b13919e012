from array import array

from fastkube._sched import Tally, Topology

COMPILED: bool
PLAIN: int
NORMALIZED: int
REVERSED: int

class Constant:
    name: str
    weight: int
    def __init__(self, name: str, weight: int, score: int) -> None: ...
    def fill(self, nodes: array[int], count: int, out: array[int]) -> None: ...

class Fixed:
    name: str
    weight: int
    def __init__(self, name: str, weight: int, values: array[int], mode: int) -> None: ...
    def fill(self, nodes: array[int], count: int, out: array[int]) -> None: ...

class Affinity:
    name: str
    weight: int
    def __init__(self, name: str, weight: int, parts: list[tuple[Tally, int]]) -> None: ...
    def fill(self, nodes: array[int], count: int, out: array[int]) -> None: ...

class SpreadScore:
    name: str
    weight: int
    def __init__(
        self, name: str, weight: int, parts: list[tuple[Tally, Topology | None, int]], require_all: bool
    ) -> None: ...
    def fill(self, nodes: array[int], count: int, out: array[int]) -> None: ...

RANK_SIZE: int

class Ranking:
    best: int
    found: int
    def __init__(self, capacity: int) -> None: ...
    def begin(self, start: int) -> None: ...
    def put(self, slot: int, version: int, rank: tuple[int, ...] | None) -> None: ...
    def advance(self, order: array[int], versions: array[int], hopeful: array[int], want: int) -> int: ...
