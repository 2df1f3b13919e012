"""NodeName: a Pod that names its node in spec.nodeName runs there.

Such a Pod is bound already, and never comes to the scheduler's queue: nothing is left to filter. The plugin is here
because configurations enable and disable it by name.
"""

from __future__ import annotations

from fastkube.scheduler.framework import Plugin, ScreenDraft
from fastkube.scheduler.pods import PodSpec


class NodeName(Plugin):
    name = "NodeName"
    pre_filters = False

    def screen_filter(self, spec: PodSpec, draft: ScreenDraft) -> None:
        """Nothing to refuse: see above."""
