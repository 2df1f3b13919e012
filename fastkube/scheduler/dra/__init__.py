"""Dynamic resource allocation by structured parameters: which devices there are, which are taken, who may get which."""
