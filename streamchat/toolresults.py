"""What a tool returned or raised, as the text or the documents that the model is told."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import attrs

from streamchat.protocol.messages import Document, DocumentContent, TextContent
from streamchat.protocol.plain import MAX_DEPTH, is_list, is_mapping, to_plain
from streamchat.protocol.values import plain_value

__all__ = ["article", "content_or_problem", "words_of"]

MAX_WORDS = 4096
"""Characters of an exception's words that the model is told."""

Result = str | list[TextContent | DocumentContent]


def words_of(error: Exception) -> str:
    """The words of an exception, cut."""
    try:
        words = str(error)
    except Exception:  # noqa: BLE001  # __str__ is the tool's code
        return "(its words cannot be read)"
    return words if len(words) <= MAX_WORDS else words[: MAX_WORDS - 1] + "…"


def article(value: object) -> str:
    """A value's class, with its article."""
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def content_or_problem(value: Any) -> tuple[Result | None, str]:
    """A tool's value as the content of its message, or why JSON cannot say it."""
    try:
        return _content(value), ""
    except Exception as error:  # noqa: BLE001  # values may have methods of the caller's
        return None, words_of(error)


def _content(value: Any) -> Result:
    """A tool's value as the content of its message.

    Text is told as it is. Everything else is a document, because a document can be cited; of a list of
    objects each is one.

    Raises:
        TypeError, ValueError: JSON cannot say it.
    """
    content: Result
    if isinstance(value, str):
        content = value
    elif is_list(value) and value and all(_is_object(item) for item in value):
        content = [_part(item) for item in value]
    else:
        content = [_part(value)]
    to_plain(content, "the value", levels=MAX_DEPTH)
    return content


def _is_object(value: Any) -> bool:
    if isinstance(value, TextContent | DocumentContent | Document) or is_mapping(value):
        return True
    if value is None or isinstance(value, str | int | float | list | tuple):
        return False
    with suppress(TypeError, ValueError):
        return isinstance(plain_value(value), dict)
    return False


def _part(value: Any) -> TextContent | DocumentContent:
    if isinstance(value, TextContent):
        return value
    if isinstance(value, DocumentContent):
        return attrs.evolve(value, document=_document(value.document))
    if isinstance(value, Document):
        return DocumentContent(_document(value))
    plain = plain_value(value)
    return DocumentContent(Document(plain if is_mapping(plain) else {"result": plain}))


def _document(document: Document) -> Document:
    return attrs.evolve(document, data=plain_value(document.data))
