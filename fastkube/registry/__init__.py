"""Generic verbs in one fixed order, and a strategy for each kind that differs."""
