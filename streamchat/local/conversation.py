"""A request read as a conversation: who asked what, which tools answered. Imports ``shapes``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

import attrs

from streamchat.local.hints import COMMANDS
from streamchat.local.shapes import list_or_empty, object_or_empty, parse_json
from streamchat.local.words import names, numbers, quoted

__all__ = ["READ_LIMIT", "Conversation", "digest", "text_of"]

READ_TOTAL = 1_000_000
"""Code points of all user messages that are read, the newest first."""
MAX_INSTRUCTIONS = 20
"""Messages at the start of a conversation among which system messages are read."""
MAX_BRACES = 50
"""Places in a text where a JSON Schema is looked for."""
READ_LIMIT = 100_000
"""Code points of one text that are read: a demo model that answers a 30 MB prompt in no time."""


def text_of(content: Any) -> str:
    """The text of a message's ``content``: a string, or the text parts joined by line ends."""
    if isinstance(content, str):
        return content[:READ_LIMIT]
    texts = [object_or_empty(part).get("text") for part in list_or_empty(content)]
    return "\n".join(text for text in texts if isinstance(text, str))[:READ_LIMIT]


@attrs.frozen
class Conversation:
    """What the model looks at, besides documents and tools."""

    question: str
    """The text of the last user message; empty if there is none."""
    earlier: tuple[str, ...]
    """The texts of the user messages before it, oldest first, as far back as they are read."""
    calls: Mapping[str, Mapping[str, Any]]
    """Every tool call of the conversation by its id: ``{"name": ..., "arguments": ...}``."""
    results: tuple[Mapping[str, Any], ...]
    """The tool messages at the end; empty when somebody else spoke last."""
    called: frozenset[str]
    """Names of the tools that were called since the question."""
    images: int
    """How many images were sent."""
    instructions: tuple[str, ...] = ()
    """The texts of the system messages."""

    @classmethod
    def read(cls, request: Mapping[str, Any]) -> Conversation:
        """Read ``request["messages"]``."""
        messages = [object_or_empty(item) for item in list_or_empty(request.get("messages"))]
        asked = [i for i, message in enumerate(messages) if message.get("role") == "user"]
        said: list[str] = []
        left = READ_TOTAL
        for place in reversed(asked):
            said.append(text_of(messages[place].get("content")))
            left -= len(said[-1]) + 1
            if left <= 0:
                break
        results = list(takewhile(lambda message: message.get("role") == "tool", messages[::-1]))
        calls, called = _calls(messages, asked[-1] if asked else -1)
        return cls(
            question=said[0] if said else "",
            earlier=tuple(said[:0:-1]),
            calls=calls,
            results=tuple(results[::-1]),
            called=called,
            images=sum(_images(message.get("content")) for message in messages),
            instructions=tuple(
                text_of(message.get("content"))
                for message in messages[:MAX_INSTRUCTIONS]
                if message.get("role") == "system"
            ),
        )


def _calls(
    messages: list[Mapping[str, Any]], last_question: int
) -> tuple[dict[str, Mapping[str, Any]], frozenset[str]]:
    calls: dict[str, Mapping[str, Any]] = {}
    called: set[str] = set()
    for position, message in enumerate(messages):
        for item in list_or_empty(message.get("tool_calls")):
            call = object_or_empty(item)
            function = object_or_empty(call.get("function"))
            calls[str(call.get("id"))] = function
            if position > last_question:
                called.add(str(function.get("name")))
    return calls, frozenset(called)


def _images(content: Any) -> int:
    parts = map(object_or_empty, list_or_empty(content))
    return sum(part.get("type") == "image_url" for part in parts)


def schema_in_texts(talk: Conversation) -> tuple[Mapping[str, Any], str]:
    """A JSON Schema that stands in the question or else in a system message, and the question.

    Libraries without a format of their own for it write the schema into a prompt. Returns an empty
    schema if there is none, and the question without the schema.
    """
    schema, before, after = _last_schema(talk.question)
    if schema:
        # Without anything to fill in after the schema, that is an instruction only.
        says_something = names(after, COMMANDS) or numbers(after) or quoted(after)
        return schema, after.strip("` \n") if says_something else f"{before} {after}".strip("` \n")
    for text in reversed(talk.instructions):
        schema, _, _ = _last_schema(text)
        if schema:
            break
    return schema, talk.question


def _last_schema(text: str) -> tuple[Mapping[str, Any], str, str]:
    """The last one, for an example may stand before it, and the texts before and after it.

    All JSON objects are left out of these texts.
    """
    schema: Mapping[str, Any] = {}
    decoder = json.JSONDecoder()
    pieces: list[str] = []
    split = start = place = 0
    for _ in range(MAX_BRACES):
        place = text.find("{", place)
        if place < 0:
            break
        try:
            _, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            place += 1
            continue
        pieces.append(text[start:place])
        found = _schema_of(parse_json(text[place:end]))
        if found:
            schema, split = found, len(pieces)
        start = place = end
    pieces.append(text[start:])
    return schema, " ".join(pieces[:split]), " ".join(pieces[split:])


def _schema_of(value: Any) -> Mapping[str, Any]:
    """The value if it is the JSON Schema of an object, or the one in a wrapper around it."""
    data = object_or_empty(value)
    for schema in (data, *(object_or_empty(data.get(name)) for name in _WRAPPERS)):
        if object_or_empty(schema.get("properties")) or (
            object_or_empty(schema.get("$defs")) and ("$ref" in schema or "anyOf" in schema)
        ):
            return schema
    return {}


_WRAPPERS = ("json_schema", "schema", "parameters", "input_schema")


def digest(request: Mapping[str, Any], *more: object) -> bytes:
    """32 bytes that depend on all that the answer depends on, the seed included, and on ``more``.

    ``stream`` is left out, so that a streamed and a unary answer are the same answer.
    """
    fields = {name: value for name, value in request.items() if name != "stream"}
    text = json.dumps([fields, *map(str, more)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).digest()
