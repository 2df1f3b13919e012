"""One file a controller: a pure reconcile, and one runner for all."""
