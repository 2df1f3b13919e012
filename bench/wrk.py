"""wrk, where it is installed: a second opinion on the headline figures, since a slow client hides a fast server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from typing import Any

from bench.load import Target

NUMBER = "NNNNNNNN"
"""Stands in a body for what is different in every request."""

_SCRIPT = """
local body = %s
local number = 0
request = function()
  number = number + 1
  return wrk.format("POST", nil, nil, (body:gsub("%s", string.format("%%08d", number))))
end
done = function(summary, latency, requests)
  io.write(string.format("failed: %%d\\n", summary.errors.status))
end
"""


def found() -> bool:
    return shutil.which("wrk") is not None


def get(target: Target, path: str, connections: int, seconds: float) -> float:
    """GETs of one path a second."""
    return _run(target, path, connections, seconds, "")


def create(target: Target, path: str, obj: dict[str, Any], connections: int, seconds: float) -> float:
    """POSTs a second of objects that differ in NUMBER."""
    body = json.dumps(obj, separators=(",", ":"))
    return _run(target, path, connections, seconds, _SCRIPT % (json.dumps(body), NUMBER))


def _run(target: Target, path: str, connections: int, seconds: float, script: str) -> float:
    words = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s"]
    for header in (
        f"Authorization: Bearer {target.token}",
        "Accept: application/json",
        "Content-Type: application/json",
    ):
        words += ["--header", header]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        if script:
            file.write(script)
            file.flush()
            words += ["--script", file.name]
        told = subprocess.run(
            [*words, target.url + path], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", told)
    failed = re.search(r"failed: ([0-9]+)|Non-2xx or 3xx responses: ([0-9]+)", told)
    if rate is None or (failed is not None and any(part not in (None, "0") for part in failed.groups())):
        raise RuntimeError(f"wrk failed:\n{told}")
    return float(rate[1])
