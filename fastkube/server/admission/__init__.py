"""Admission: what is changed in, and refused of, the objects that a request would write.

`chain.PLUGINS` is the whole chain in its order; `plugin` says what a plugin is and the rules it obeys.
"""
