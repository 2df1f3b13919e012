"""The HTTP shell: the only entrance to the state."""
