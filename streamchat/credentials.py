"""The API key and other header values: checked once, shown never; imports the errors only.

Sources: faults.md F108 and F109, RFC 9110 5.5 and 5.6.2 (what a header may hold).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NoReturn, TypeVar, cast

from streamchat.protocol.errors import ConfigurationError

__all__ = ["Secret", "checked_headers", "checked_key", "hidden", "veiled"]

T = TypeVar("T")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_VALUE = re.compile(r"[\x20-\x7e]*", re.ASCII)
_KEY = re.compile(r"[\x21-\x7e]{1,4096}", re.ASCII)


class Secret(str):
    """Text that shows itself nowhere: not in a ``repr``, a traceback's locals or a pickle.

    It stays a ``str`` so that it can go into a header as it is; with a plain ``str`` the HTTP
    library's own frames and exceptions would print it.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


def checked_key(key: Secret) -> Secret | None:
    """The key without the line end that files leave; ``None`` for an empty one.

    Raises:
        ConfigurationError: it holds white space, control characters or other than ASCII, or is
            longer than 4,096 characters. The message does not show it.
    """
    key = Secret(key.removesuffix("\n").removesuffix("\r"))
    if not key:
        return None
    if _KEY.fullmatch(key):
        return key
    raise ConfigurationError(
        "the API key holds white space, control characters or letters outside ASCII; "
        "it was probably pasted with something around it"
    )


def hidden(headers: Mapping[str, str] | None) -> dict[str, str]:
    """A copy whose values show nowhere; to be made before anything can fail.

    What is no text, or no mapping, becomes ``None``, which :func:`checked_headers` refuses.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        return cast("dict[str, str]", {None: None})  # type: ignore[unreachable]
    return {
        name: Secret(value) if isinstance(value, str) else cast("str", None)
        for name, value in headers.items()
    }


def veiled(value: T) -> T | Secret:
    """A setting that may hold a password, for as long as it has not been checked."""
    return Secret(value) if isinstance(value, str) else value


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """A copy of extra request headers (see :func:`hidden`), safe to send.

    Raises:
        TypeError: a name or value that is no ``str``.
        ValueError: a name that is no RFC 9110 token, or a value that is not printable ASCII; the
            message names the header and does not show the value.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("headers must map str to str")
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is not a valid header name")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of header {name!r} must be printable ASCII")
    return dict(headers)


def merged_headers(headers: Mapping[str, str], extra: Mapping[str, str]) -> Mapping[str, str]:
    """Headers with others over them, whatever the case of their names.

    Without others they are the same object, so that a thousand streams share it.
    """
    if not extra:
        return headers
    merged = dict(headers)
    own = {name.lower(): name for name in headers}
    for name, value in extra.items():
        merged[own.get(name.lower(), name)] = value
    return merged
