"""The lines of a batch: requests in, results and errors out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import click

from streamchat import ChatOptions, FanOutResult, StatusError, StreamChatError
from streamchat.cli.terminal import visible_name
from streamchat.journal import request_key

__all__ = ["Line", "error_row", "read_lines", "result_row"]

_BODY_FIELDS = frozenset({"messages", "model", *ChatOptions.__annotations__})


@attrs.frozen
class Line:
    """One line of the input."""

    index: int
    """Its number, from 0: blank and bad lines count."""
    id: Any = None
    """The row's own ``id``, if it has one."""
    request: dict[str, Any] | None = None
    """Keywords of ``chat_stream``; ``None`` for a line that is no request."""
    problem: str = ""
    """Why it is none; empty for a blank line."""

    @property
    def key(self) -> str:
        """What identifies it between runs."""
        return request_key({"id": self.id, "body": self.request, "bad": self.request is None})


def read_lines(path: Path, model: str) -> Iterator[Line]:
    """The lines of a file, one at a time; ``model`` is for those that name none.

    Raises:
        click.BadParameter: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for index, text in enumerate(file):
                yield _line(index, text, model)
    except OSError as error:
        raise click.BadParameter(
            f"{visible_name(path)}: {error.strerror or 'cannot be read'}", param_hint="IN.jsonl"
        ) from None


def _line(index: int, text: bytes, model: str) -> Line:
    if not text.strip():
        return Line(index)
    try:
        row: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        return Line(index, problem=f"not JSON: {reason}")
    if not isinstance(row, dict):
        return Line(index, problem="not a JSON object")
    fields: dict[str, Any] = dict(row)  # pyright: ignore[reportUnknownArgumentType]  # JSON
    own = fields.pop("id", None)
    fields.pop("stream", None)  # it is streamed in any case
    if "prompt" in fields:
        if "messages" in fields:
            return Line(index, own, problem="has both prompt and messages")
        fields["messages"] = fields.pop("prompt")
        if not isinstance(fields["messages"], str):
            return Line(index, own, problem="prompt must be a text")
    if "messages" not in fields:
        return Line(index, own, problem='has neither "messages" nor "prompt"')
    unknown = sorted(fields.keys() - _BODY_FIELDS)
    if unknown:
        return Line(index, own, problem=f"{unknown[0][:64]!r} is no field of Chat v2")
    fields.setdefault("model", model)
    return Line(index, own, fields)


def result_row(line: Line, result: FanOutResult) -> dict[str, Any]:
    """A row of ``OUT.jsonl`` (design.md 4)."""
    assert result.response is not None
    return {
        "index": line.index,
        "id": line.id,
        "response": result.response.to_dict(),
        "attempts": result.attempts,
        "timing": attrs.asdict(result.timing),
    }


def error_row(line: Line, error: Exception | str, attempts: int = 0) -> dict[str, Any]:
    """A row of ``OUT.errors.jsonl``: where, and what was wrong; with what had arrived."""
    row: dict[str, Any] = {"index": line.index, "line": line.index + 1, "id": line.id}
    if isinstance(error, str):
        return {**row, "error": "BadLine", "message": error}
    row |= {"error": type(error).__name__, "message": str(error), "attempts": attempts}
    if isinstance(error, StatusError):
        row |= {"status": error.status, "request_id": error.request_id}
    if isinstance(error, StreamChatError) and error.partial is not None:
        row["partial"] = error.partial.to_dict()
    return row
