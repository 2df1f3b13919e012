"""A way that can be cut."""

from __future__ import annotations

import asyncio


class Proxy:
    """In front of a port: closed, it drops what goes through it and takes nothing new."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target = port, target
        self.is_open = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.AbstractServer

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.close()
        self._server.close()

    def close(self) -> None:
        self.is_open = False
        for writer in tuple(self._writers):
            writer.transport.abort()

    def open(self) -> None:
        self.is_open = True

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.is_open:
                there, back = await asyncio.open_connection("127.0.0.1", self.target)
                self._writers.add(back)
                try:
                    await asyncio.gather(_pump(reader, back), _pump(there, writer))
                finally:
                    self._writers.discard(back)
                    back.close()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
