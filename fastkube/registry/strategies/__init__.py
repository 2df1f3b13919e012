"""The kinds that differ, one file a group; STRATEGIES is the whole list."""
