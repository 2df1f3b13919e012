"""Queue, cache, plugins and the scheduling loop."""
