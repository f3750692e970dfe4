"""A network in memory, for what is measured without one: ``guard``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

CHUNK = 16 * 1024


def chunks_of(frames: Sequence[bytes]) -> list[bytes]:
    """The frames of one answer in chunks of 16 KiB."""
    body = b"".join(frames)
    return [body[i : i + CHUNK] for i in range(0, len(body), CHUNK)]


class Answer:
    """A response whose chunks are all there, as ``streamchat.transport.Exchange``."""

    status = 200
    headers: Mapping[str, str] = {"content-type": "text/event-stream"}
    content_type = "text/event-stream"

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._chunks = iter(chunks)
        self.bytes_received = 0

    async def read(self) -> bytes:
        return next(self._chunks, b"")

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        pass


class Network:
    """Answers every request with the same chunks, as ``streamchat.transport.Transport``."""

    host = "memory"
    is_open = False

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.chunks = chunks

    def attach(self, user: object) -> None:
        pass

    async def open(
        self, headers: object, body: bytes, *, connect_timeout: object, use: object
    ) -> Answer:
        return Answer(self.chunks)

    async def aclose(self) -> None:
        pass
