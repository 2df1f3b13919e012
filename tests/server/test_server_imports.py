"""What a process imports of a package, and that the rest of it is there when it is asked for."""

import subprocess
import sys


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_server_starts_without_the_client_of_aiohttp() -> None:
    code = "import sys, fastkube.server.app; print(*(name for name in sys.modules if name.startswith('aiohttp')))"
    loaded = run(code)
    assert "aiohttp.http_parser" in loaded
    assert "aiohttp.connector" not in loaded


def test_aiohttp_is_whole_for_whoever_asks_for_more() -> None:
    code = (
        "import fastkube.server.app, aiohttp, aiohttp.web\n"
        "from aiohttp import ClientSession, hdrs\n"
        "print(aiohttp.__version__, ClientSession.__name__, hdrs.METH_GET, aiohttp.web.Application.__name__)"
    )
    from importlib.metadata import version

    assert run(code) == [version("aiohttp"), "ClientSession", "GET", "Application"]


def test_a_package_that_was_imported_before_is_left_alone() -> None:
    code = "import aiohttp; whole = dir(aiohttp); import fastkube.nodes; print(dir(aiohttp) == whole)"
    assert run(code) == ["True"]
