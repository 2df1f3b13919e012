"""A server told to encrypt: clients notice nothing, the disk holds no secret, and a new key takes over."""

from __future__ import annotations

import base64
import json
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

SECRETS = "/api/v1/namespaces/default/secrets"
SECRET = {
    "kind": "Secret",
    "apiVersion": "v1",
    "metadata": {"name": "s"},
    "stringData": {"password": "hunter2-hunter2"},
}


def write_keys(folder: Path, *keys: str) -> None:
    """The configuration: the first key writes."""
    told = [{"name": key, "secret": base64.b64encode(key.encode() * 32).decode()} for key in keys]
    entry = {"resources": ["secrets"], "providers": [{"aesgcm": {"keys": told}}]}
    document = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": [entry]}
    (folder / "encryption.yaml").write_text(yaml.safe_dump(document))


@contextmanager
def serving(folder: Path, *keys: str, more: tuple[str, ...] = ()) -> Iterator[str]:
    """A server with a frontend, whose first key writes; its URL."""
    write_keys(folder, *keys)
    (folder / "tokens.csv").write_text('admin,admin,admin,"system:masters"\n')
    command = [sys.executable, "-m", "fastkube", "apiserver", "--data-dir", str(folder / "data"), "--secure-port", "0"]
    command += ["--token-auth-file", str(folder / "tokens.csv"), "--frontends", "1"]
    command += ["--encryption-provider-config", str(folder / "encryption.yaml"), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"https://\S+", process.stdout.readline())
        assert found is not None
        yield found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def ask(url: str, method: str, path: str, body: Any = None) -> Any:
    headers = {"Authorization": "Bearer admin", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, headers, method=method)
    with urllib.request.urlopen(request, context=ssl._create_unverified_context(), timeout=10) as answer:
        return json.loads(answer.read())


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in (folder / "data" / "store").glob("*.mdb"))


def test_secrets_are_encrypted_and_change_keys(tmp_path: Path) -> None:
    password = base64.b64encode(b"hunter2-hunter2").decode()
    with serving(tmp_path, "a") as url:
        assert ask(url, "POST", SECRETS, SECRET)["data"] == {"password": password}
        assert [each["data"] for each in ask(url, "GET", SECRETS)["items"]] == [{"password": password}]
    assert b"k8s:enc:aesgcm:v1:a:" in on_disk(tmp_path)
    assert password.encode() not in on_disk(tmp_path)
    with serving(tmp_path, "b", "a") as url:
        old = ask(url, "GET", f"{SECRETS}/s")
        new = ask(url, "PUT", f"{SECRETS}/s", old)
        assert (new["data"], new["metadata"]["uid"]) == (old["data"], old["metadata"]["uid"])
        assert new["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]
        again = ask(url, "PUT", f"{SECRETS}/s", new)
        assert again["metadata"]["resourceVersion"] == new["metadata"]["resourceVersion"]


def test_keys_are_exchanged_while_the_server_runs(tmp_path: Path) -> None:
    with serving(tmp_path, "a", more=("--encryption-provider-config-automatic-reload",)) as url:
        ask(url, "POST", SECRETS, SECRET)
        write_keys(tmp_path, "b", "a")
        for number in range(40):
            ask(url, "POST", SECRETS, {**SECRET, "metadata": {"name": f"s{number}"}})
            time.sleep(0.1)
        assert ask(url, "GET", f"{SECRETS}/s")["data"] == ask(url, "GET", f"{SECRETS}/s39")["data"]
    stored = on_disk(tmp_path)
    assert b"k8s:enc:aesgcm:v1:a:" in stored and b"k8s:enc:aesgcm:v1:b:" in stored
