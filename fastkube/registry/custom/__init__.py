"""Kinds that CustomResourceDefinitions define, and the definitions themselves.

    definitions.py   the strategy of CustomResourceDefinition; schemas.py and structure.py judge the schemas in it
    establishing.py  names, conditions and the end of a definition
    kinds.py         the catalog's entry of a definition: what the rest of the server knows of its kind
    instances.py     the one strategy of all custom kinds; defaults.py, rules.py (CEL) and embedded.py are parts of it
    keeper.py        follows the definitions in the store: the catalog, and the work that each definition asks for

Requests for custom kinds go the same way as those for built-in ones; whatever differs is in the strategy and in the
catalog's entry.
"""
