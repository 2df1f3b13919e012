"""`fastkube up` that cannot start says why in one line; one that is told to stop does so at once, and well."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

UP = (sys.executable, "-m", "fastkube", "up", "--secure-port", "0")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--nodes", "-1"), "nodes: -1 is less than 0"),
        (("--data-dir", "/dev/null"), "/dev/null: File exists"),
        (("--token-auth-file", "/no/such/file"), "/no/such/file: No such file or directory"),
        (("--secure-port", "99999"), "secure-port: 99999 is not a port between 0 and 65535"),
        (
            ("--tls-cert-file", "/dev/null", "--tls-private-key-file", "/dev/null"),
            "/dev/null, /dev/null: not a certificate and its key (PEM)",
        ),
    ],
)
def test_what_cannot_start_says_why_in_one_line(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    up = subprocess.run([*UP, "--data-dir", str(tmp_path), *words], capture_output=True, text=True, timeout=60)
    assert (up.returncode, up.stdout, up.stderr) == (1, "", f"fastkube: {told}\n")


def test_a_controller_that_does_not_exist_is_named(tmp_path: Path) -> None:
    words = [*UP, "--data-dir", str(tmp_path), "--controllers", "*,nope"]
    up = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (up.returncode, up.stdout) == (1, "")
    assert up.stderr.splitlines()[0] == "fastkube: controllers: 'nope' is not in the list of known controllers"
    assert "Traceback" not in up.stderr


def test_it_stops_well_while_somebody_is_connected(tmp_path: Path) -> None:
    with subprocess.Popen([*UP, "--data-dir", str(tmp_path)], stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        host, _, port = up.stdout.readline().rpartition("://")[2].strip().rpartition(":")
        with socket.create_connection((host, int(port))):
            up.send_signal(signal.SIGINT)
            assert up.wait(20) == 0


def test_its_components_end_with_it_even_when_it_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([*UP, "--data-dir", str(tmp_path)], stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        assert "is ready" in up.stdout.readline()
        children = psutil.Process(up.pid).children()
        assert "fastkube-parts" in [child.name() for child in children]
        up.kill()
        assert up.wait(20) == -signal.SIGKILL
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_only_the_components_are_left_beside_it(tmp_path: Path) -> None:
    with subprocess.Popen([*UP, "--data-dir", str(tmp_path)], stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        assert "is ready" in up.stdout.readline()
        children = psutil.Process(up.pid).children()
        psutil.wait_procs([child for child in children if child.name() == "fastkube-keys"], timeout=30)
        assert [child.name() for child in psutil.Process(up.pid).children()] == ["fastkube-parts"]
        assert (tmp_path / "pki" / "sa.key").exists()
        up.terminate()
        assert up.wait(20) == 0
