"""JSON text that is still growing, as far as it goes. Needs the package ``jiter``."""

from __future__ import annotations

import json
import re
from typing import Any

from streamchat.protocol.errors import ConfigurationError
from streamchat.protocol.plain import decode_json, is_mapping

__all__ = ["ESCAPE", "growing_object", "read_beginning"]

ESCAPE = re.compile(r"\\.", re.DOTALL)
"""An escape inside a JSON string; of ``\\u0041`` its first two characters."""

_LOW = r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_HALF_LOW = r"(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?\Z"
_ESCAPES = re.compile(
    rf"\\u[dD][89abAB][0-9a-fA-F]{{2}}(?:{_LOW}|(?={_HALF_LOW}))"
    r"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
_NUMBER = "+-.0123456789Ee"
_SPACE = " \t\n\r"


def read_beginning(text: str, what: str, *, in_string: bool, whole: bool = False) -> Any:
    """The value of incomplete JSON: complete keys, and unfinished strings as far as they came.

    An unfinished number is left out, because 12 may be the beginning of 1200. Half of a surrogate pair
    reads as U+FFFD.

    Args:
        text: the beginning of a JSON text.
        what: how an error calls the values: "partial answers".
        in_string: whether the text ends inside a string.
        whole: whether the text is complete.

    Raises:
        ConfigurationError: the package ``jiter`` is missing.
        ValueError: the text is not the beginning of a JSON text.
    """
    try:
        import jiter
    except ImportError:
        raise ConfigurationError(
            f"{what} need the package jiter: pip install 'streamchat[partial]'"
        ) from None
    if not (whole or in_string):
        text = text.rstrip(_NUMBER)
    if "\\u" in text:
        text = _ESCAPES.sub(lambda found: "\\ufffd" if found["lone"] else found[0], text)
    return jiter.from_json(
        text.encode("utf-8", "replace"), partial_mode="trailing-strings", allow_inf_nan=False
    )


def growing_object(text: str, what: str) -> dict[str, Any]:
    """:func:`read_beginning` of an object. Nothing and ``null`` are ``{}``.

    Raises:
        ConfigurationError: the package ``jiter`` is missing.
        ValueError: the text is not the beginning of a JSON object.
    """
    stripped = text.strip(_SPACE)
    if "null".startswith(stripped):
        return {}
    if not stripped.startswith("{"):
        raise ValueError("not the beginning of a JSON object")
    if text.count("{") <= text.count("}"):  # it may be complete
        try:
            return dict(decode_json(text))
        except ValueError:
            if _has_end(stripped):
                raise
    in_string = ESCAPE.sub("", text).count('"') % 2 == 1
    value: Any = None
    try:
        value = read_beginning(text, what, in_string=in_string)
    except ConfigurationError:
        raise
    except ValueError:  # its words are those of jiter
        pass
    if is_mapping(value):
        return dict(value)
    raise ValueError("not the beginning of a JSON object")


def _has_end(text: str) -> bool:
    """Whether the text begins with a complete JSON value."""
    try:
        json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return True
