"""What an API object is: pure functions over dicts, no I/O."""
