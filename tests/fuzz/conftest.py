"""`make fuzz` installs what these tests need; a suite that does not ask for them goes on without it."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("schemathesis") else ["test_fuzz_openapi.py"]
