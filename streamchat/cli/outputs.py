"""Where the rows of a batch go: a file with a journal, or stdout, a pipe or a device without one."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs

from streamchat.cli.options import bad
from streamchat.cli.terminal import Channel
from streamchat.journal import Journal
from streamchat.journal.places import NO_WAIT
from streamchat.protocol.plain import encode_json

__all__ = ["JournalOutput", "Output", "StreamOutput", "opened_stream"]

READER_SECONDS = 3.0
"""How long a FIFO may have no reader before it is given up."""


class Output(Protocol):
    """Takes rows."""

    def is_done(self, index: int) -> bool:
        """Whether this line has its row."""
        ...

    def start(self, index: int, key: str) -> None:
        """Note that a request is about to be sent."""
        ...

    async def put(self, row: Mapping[str, Any]) -> None:
        """Write a row.

        Raises:
            TypeError, ValueError: JSON cannot say it; nothing was written.
            OSError: it cannot be written.
        """
        ...

    def finish(self, *, sort: bool) -> None:
        """The job is complete."""
        ...

    def close(self) -> None:
        """Force everything to the disk."""
        ...


class JournalOutput:
    """A file, resumed by its journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def is_done(self, index: int) -> bool:
        """Whether this line has its row."""
        return self._journal.is_done(index)

    def start(self, index: int, key: str) -> None:
        """Note that a request is about to be sent."""
        self._journal.start(index, key)

    async def put(self, row: Mapping[str, Any]) -> None:
        """Write a row."""
        self._journal.finish(row)
        await self._journal.sync_if_due()

    def finish(self, *, sort: bool) -> None:
        """Sort the rows if that is asked for."""
        if sort:
            self._journal.sort()

    def close(self) -> None:
        """Force everything to the disk."""
        self._journal.close()


@attrs.define
class StreamOutput:
    """A descriptor that rows are written to as they complete; nothing is kept to resume from."""

    descriptor: int
    is_owned: bool
    """Whether it is closed with the job."""
    screen: Channel | None = None
    """The terminal it is, if it is one."""
    waits: bool = True
    """Whether it may have no room."""

    def is_done(self, index: int) -> bool:
        """Whether this line has its row."""
        return False

    def start(self, index: int, key: str) -> None:
        """Nothing is noted."""

    async def put(self, row: Mapping[str, Any]) -> None:
        """Write a row."""
        line = encode_json(row)
        if self.screen is not None:
            self.screen.write_json(line)
            return
        left = memoryview(line + b"\n")
        while left:
            if self.waits:
                await self._room()
            # A pipe that has room takes this much at once, and the loop is never held by a slow reader.
            piece = left[: select.PIPE_BUF] if self.waits else left
            try:
                left = left[os.write(self.descriptor, piece) :]
            except BlockingIOError:
                continue

    async def _room(self) -> None:
        """Wait until something can be written."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        try:
            loop.add_writer(self.descriptor, ready.set)
        except (OSError, NotImplementedError):
            self.waits = False  # files and most devices always have room
            return
        try:
            await ready.wait()
        finally:
            loop.remove_writer(self.descriptor)

    def finish(self, *, sort: bool) -> None:
        """Rows came in their order already."""

    def close(self) -> None:
        """Force everything to the disk."""
        if self.is_owned:
            self.is_owned = False
            os.close(self.descriptor)


def opened_stream(path: Path) -> StreamOutput:
    """A FIFO or a device, opened.

    Raises:
        click.BadParameter: nobody reads the FIFO.
        OSError: it cannot be opened.
    """
    flags = os.O_WRONLY | NO_WAIT
    given_up = time.monotonic() + READER_SECONDS
    while True:
        try:
            return StreamOutput(os.open(path, flags), is_owned=True)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if not stat.S_ISFIFO(os.stat(path).st_mode):
                raise bad("-o", path, "is a socket or a device that takes no rows") from None
            if time.monotonic() >= given_up:
                raise bad("-o", path, "is a FIFO that nobody reads") from None
            time.sleep(0.05)
