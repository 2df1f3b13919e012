"""ImageLocality: nodes that hold a Pod's images score higher, the more the larger the images are.

An image counts for less while only few nodes hold it, so that Pods do not crowd where it was pulled first.
"""

from __future__ import annotations

from array import array

from fastkube import _scores
from fastkube.scheduler.framework import MAX_SCORE, Plugin, ScreenDraft
from fastkube.scheduler.pods import PodSpec

_MB = 1024 * 1024
BYTES_MIN = 23 * _MB
BYTES_MAX_PER_CONTAINER = 1000 * _MB


class ImageLocality(Plugin):
    name = "ImageLocality"
    pre_scores = False

    def screen_score(self, spec: PodSpec, draft: ScreenDraft) -> None:
        draft.uses_images = True
        index = draft.cache.index
        total = index.all.bit_count()
        held: dict[int, int] = {}
        for image in (*spec.images, *spec.image_volumes):
            sizes = index.image(image)
            spread = len(sizes) / total if total else 0.0
            for slot, size in sizes.items():
                held[slot] = held.get(slot, 0) + int(size * spread)
        most = BYTES_MAX_PER_CONTAINER * spec.containers
        if most <= BYTES_MIN or all(size <= BYTES_MIN for size in held.values()):
            return
        values = array("q", bytes(8 * draft.cache.nodes.capacity))
        for slot, size in held.items():
            values[slot] = MAX_SCORE * (min(max(size, BYTES_MIN), most) - BYTES_MIN) // (most - BYTES_MIN)
        draft.fixed_score(self.name, self.weight, values, _scores.PLAIN)
