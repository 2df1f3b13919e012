"""`pytest tests/raft --rewrite` writes what the transcripts come out as; read the difference before it is committed."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the transcripts of tests/raft anew")
