"""A request read as a conversation: who asked what, which tools answered. Imports ``shapes``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

import attrs

from streamchat.local.shapes import list_or_empty, object_or_empty

__all__ = ["READ_LIMIT", "Conversation", "digest", "text_of"]

READ_TOTAL = 1_000_000
"""Code points of all user messages that are read, the newest first."""
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


def digest(request: Mapping[str, Any], *more: object) -> bytes:
    """32 bytes that depend on all that the answer depends on, the seed included, and on ``more``.

    ``stream`` is left out, so that a streamed and a unary answer are the same answer.
    """
    fields = {name: value for name, value in request.items() if name != "stream"}
    text = json.dumps([fields, *map(str, more)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).digest()
