"""Conversations and results of a fan-out as Markdown, for notebooks; imports ``protocol``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from streamchat.protocol.json_answers import message_from_json
from streamchat.protocol.json_fields import Malformed
from streamchat.protocol.markdown import (
    Page,
    answer_markdown,
    message_markdown,
    paragraphs,
    plain_words,
    shortened,
)
from streamchat.protocol.plain import encode_json, is_list, is_mapping
from streamchat.protocol.response import ChatResponse

__all__ = ["conversation_markdown", "result_markdown"]

MOST_RESULT = 500
"""Characters of a tool's result that are shown."""
MOST_ERROR = 2000
"""Characters of an error's words that are shown."""


def result_markdown(index: int, response: ChatResponse | None, error: Exception | None) -> str:
    """What became of one request of a fan-out."""
    parts = [f"**Request {index}**"]
    if response is not None:
        fields = (response.message, response.usage, response.finish_reason, response.error)
        parts.append(answer_markdown(*fields))
    if error is not None:
        words = plain_words(str(error), MOST_ERROR)
        parts.append(f"**{plain_words(type(error).__name__)}**" + (f": {words}" if words else ""))
    return paragraphs(*parts)


def conversation_markdown(messages: Iterable[Mapping[str, Any]], left_out: int = 0) -> str:
    """Messages in the wire's shape, each under its role in bold; sources are listed at the end.

    Args:
        messages: those that are shown.
        left_out: how many turns before them are not.
    """
    shown = list(messages)
    page = Page(*(text for message in shown for text in _texts(message)))
    parts: list[str] = []
    if left_out > 0:
        parts.append(
            f"*{left_out} earlier {'turn is' if left_out == 1 else 'turns are'} not shown*"
        )
    for message in shown:
        parts += _message_parts(message, page)
    return paragraphs(*parts, page.footnotes()) or "*no messages*"


def _message_parts(message: Mapping[str, Any], page: Page) -> list[str]:
    role = message["role"]
    if role == "tool":
        call = message.get("tool_call_id")
        name = f" {plain_words(call)}" if isinstance(call, str) else ""
        return [f"**Tool**{name}", page.code(shortened(_result_words(message), MOST_RESULT))]
    label = f"**{plain_words(role.capitalize())}**"
    if role == "assistant":
        try:
            return [label, *message_markdown(message_from_json(message, "message"), page)]
        except Malformed:
            pass  # a shape that only the server judges: its texts are shown, without footnotes
    return [label, *(page.text(text) for text in _texts(message)), *_other_parts(message)]


def _texts(message: Mapping[str, Any]) -> list[str]:
    """The texts of a message's content."""
    content = message.get("content")
    if isinstance(content, str):
        return [content]
    texts = [part.get("text") for part in _parts(content)]
    return [text for text in texts if isinstance(text, str)]


def _parts(content: object) -> list[Mapping[str, Any]]:
    parts = content if is_list(content) else [content]  # a single one need not be in a list
    return [part for part in parts if is_mapping(part)]


def _other_parts(message: Mapping[str, Any]) -> list[str]:
    """What else a message holds, by its kind alone: no image is loaded."""
    kinds = [part.get("type") for part in _parts(message.get("content")) if "text" not in part]
    return [
        f"*{plain_words(kind.removesuffix('_url'))}*" for kind in kinds if isinstance(kind, str)
    ]


def _result_words(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else encode_json(content).decode()
