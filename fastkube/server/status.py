"""Failures as answers: every one is a Status object in the format the client accepts."""

from __future__ import annotations

import orjson

from fastkube.api import codec
from fastkube.errors import ApiError
from fastkube.server.answer import Answer
from fastkube.server.media import JSON


def status_answer(error: ApiError, media: bytes = JSON) -> Answer:
    status = error.to_status()
    body = orjson.dumps(status) if media is JSON else codec.encode(status, media.decode())
    headers = "".join(f"{name}: {value}\r\n" for name, value in error.headers.items()).encode()
    return Answer(error.code, body, media, headers)
