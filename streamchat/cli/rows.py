"""The lines of a batch: requests in, results and errors out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from streamchat import ChatOptions, FanOutResult, StatusError, StreamChatError
from streamchat.cli.sources import MAX_LINE
from streamchat.journal import request_key
from streamchat.protocol.plain import decode_json, repair_surrogates, to_plain

__all__ = ["Line", "error_row", "read_lines", "result_row"]

_BODY_FIELDS = frozenset({"messages", "model", *ChatOptions.__annotations__})
_BOM = "\ufeff"
_NO_REQUEST = request_key({"id": None, "body": None, "bad": True})


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
    key: str = _NO_REQUEST
    """What identifies it between runs."""


def read_lines(lines: Iterable[bytes | None], model: str) -> Iterator[Line]:
    """Read the lines of an input, one at a time; no line stops it.

    Args:
        lines: their bytes; ``None`` for one that is too long.
        model: for those that name none.
    """
    for index, text in enumerate(lines):
        if text is None:
            yield Line(index, problem=f"longer than {MAX_LINE:,} bytes")
        else:
            yield _line(index, text, model)


def _line(index: int, text: bytes, model: str) -> Line:
    try:
        words = text.decode().removeprefix(_BOM)
    except UnicodeDecodeError as error:
        return Line(index, problem=f"not UTF-8 at byte {error.start}")
    if not words.strip():
        return Line(index)
    try:
        row: Any = decode_json(words)
    except ValueError as error:
        return Line(index, problem=str(error))
    if not isinstance(row, dict):
        return Line(index, problem="not a JSON object")
    fields: dict[str, Any] = dict(row)  # pyright: ignore[reportUnknownArgumentType]  # JSON
    own = fields.pop("id", None)
    try:
        to_plain(own, "id")
    except ValueError as error:
        return _bad(index, None, str(error))
    fields.pop("stream", None)  # it is streamed in any case
    if problem := _problem(fields):
        return _bad(index, own, problem)
    if "prompt" in fields:
        fields["messages"] = fields.pop("prompt")
    if fields.get("model") is None:  # null, as writers of tables put it
        fields["model"] = model
    try:
        key = request_key({"id": own, "body": fields, "bad": False})
    except ValueError as error:
        return _bad(index, own, str(error).removeprefix("$.body."))
    return Line(index, own, fields, key=key)


def _problem(fields: dict[str, Any]) -> str:
    """Why an object is not a request; empty if it may be one."""
    if "prompt" in fields:
        if "messages" in fields:
            return "has both prompt and messages"
        if not isinstance(fields["prompt"], str):
            return "prompt must be a text"
    elif "messages" not in fields:
        return "has neither prompt nor messages"
    unknown = [name for name in fields if name not in _BODY_FIELDS and name != "prompt"]
    return f"{unknown[0][:64]!r} is no field of Chat v2" if unknown else ""


def _bad(index: int, own: Any, problem: str) -> Line:
    # It may quote a key that is not text.
    return Line(index, own, problem=repair_surrogates(problem))


def result_row(line: Line, result: FanOutResult) -> dict[str, Any]:
    """A row of ``OUT.jsonl``."""
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
    message = repair_surrogates(str(error))
    row |= {"error": type(error).__name__, "message": message, "attempts": attempts}
    if isinstance(error, StatusError):
        trace = error.request_id
        row |= {"status": error.status, "request_id": trace and repair_surrogates(trace)}
    if isinstance(error, StreamChatError) and error.partial is not None:
        try:
            row["partial"] = to_plain(error.partial.to_dict())
        except (TypeError, ValueError):  # more levels than JSON is written with
            row["partial"] = {"text": repair_surrogates(error.partial.text)}
    return row
