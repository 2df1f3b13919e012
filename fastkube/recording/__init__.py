"""A cluster in a file: snapshots of it, recordings of its changes, and both brought to life in another one."""
