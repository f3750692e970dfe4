"""The API key and other header values: checked once, never shown; imports the errors only.

Sources: RFC 9110 5.5 and 5.6.2 (what a header may hold), 7.6.1 and 8.6 (what belongs to one connection
or one message).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, SupportsIndex, TypeVar, cast
from weakref import WeakValueDictionary

from streamchat.protocol.errors import ConfigurationError

__all__ = [
    "Secret",
    "Veiled",
    "checked_headers",
    "checked_key",
    "hidden",
    "key_in",
    "merged_headers",
    "reveal",
    "veiled",
]

T = TypeVar("T")
SHOWN = "<secret>"
"""What a secret shows instead of its value."""
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_VALUE = re.compile(r"[\x20-\x7e]*", re.ASCII)
MAX_KEY = 4096
"""Characters of a key."""
_KEY = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY}}}", re.ASCII)

_CONNECTION_HEADERS: Mapping[str, str] = {
    "connection": "it belongs to the connection, which the client manages",
    "content-encoding": "the body is sent as it is",
    "content-length": "it is computed from the body",
    "expect": "the body is sent without waiting",
    "host": (
        "it is taken from base_url: put the gateway's name there, and pass session= with a resolver "
        "of your own if that name leads elsewhere"
    ),
    "http2-settings": "HTTP/1.1 is spoken",
    "keep-alive": "it belongs to the connection, which the client manages",
    "proxy-authorization": "put user and password into proxy=",
    "proxy-connection": "it belongs to the connection, which the client manages",
    "te": "it belongs to the connection, which the client manages",
    "trailer": "the body is sent without trailers",
    "transfer-encoding": "it is computed from the body",
    "upgrade": "HTTP/1.1 is spoken",
}
"""Headers that frame the message or belong to one connection, and what to do instead."""


class Secret(str):
    """A ``str`` whose own text is ``<secret>``; only :func:`reveal` returns its value.

    So nothing that handles it as text shows it: ``repr``, formatting, ``str.join``, ``json``, and
    tools that print local variables and cut long strings. A slice or a concatenation is a ``Secret``
    of the part or of the whole. It is equal to text that is equal to its value.

    Copies are the object itself. A pickle holds a random token instead of the value: this process
    loads it as the object itself while that exists, another one as a secret without a value, which
    :func:`reveal` refuses.
    """

    __slots__ = ("__weakref__", "_token", "_value")
    _value: str | None
    _token: str | None

    def __new__(cls, value: str) -> Secret:
        if isinstance(value, Secret):
            return value
        self = super().__new__(cls, SHOWN)
        self._value = str.__str__(value)
        self._token = None
        return self

    def __repr__(self) -> str:
        return SHOWN

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and reveal(self) == reveal(other)

    def __ne__(self, other: object) -> bool:
        return not self == other  # str has one of its own, which would compare what is shown

    def __hash__(self) -> int:
        return hash(reveal(self))

    def __getitem__(self, key: SupportsIndex | slice) -> Secret:
        return Secret(reveal(self)[key])

    def __add__(self, other: str) -> Secret:
        return Secret(reveal(self) + reveal(other))

    def __radd__(self, other: str) -> Secret:
        return Secret(reveal(other) + reveal(self))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: Any) -> Secret:
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        if self._token is None:
            from secrets import token_hex  # rarely needed

            self._token = token_hex(16)
        _pickled[self._token] = self
        return _unpickled, (self._token,)


_pickled: WeakValueDictionary[str, Secret] = WeakValueDictionary()
"""The secrets that were pickled in this process."""


def _unpickled(token: str) -> Secret:
    """The secret that this token stands for; one without a value if another process pickled it."""
    found = _pickled.get(token)
    if found is None:
        found = Secret("")
        found._value = None  # pyright: ignore[reportPrivateUsage]
    return found


class Veiled(str):
    """A ``str`` that libraries can read, and that hides from ``repr``, slices, deep copies and pickles.

    For header values once the HTTP library has them, and for URLs until they have been checked. A
    deep copy is plain text without the value: what records requests (vcrpy) makes one first.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return SHOWN

    def __getitem__(self, key: SupportsIndex | slice) -> Veiled:
        return Veiled(super().__getitem__(key))

    def __copy__(self) -> Veiled:
        return self

    def __deepcopy__(self, memo: Any) -> str:
        return SHOWN

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return str, (SHOWN,)


def reveal(text: str) -> str:
    """The value of a :class:`Secret`; any other text as it is.

    Do not keep it in a local variable: tracebacks show those.

    Raises:
        ConfigurationError: the secret was pickled in another process.
    """
    if not isinstance(text, Secret):
        return text
    value = text._value  # pyright: ignore[reportPrivateUsage]
    if value is None:
        del value
        raise ConfigurationError(
            "this secret was pickled by another process, which does not carry its value over: "
            "give the key or header to a client made in this process"
        )
    return value


def key_in(environment: Mapping[str, str]) -> str:
    """The key of the environment: ``CO_API_KEY``, or if that is empty ``COHERE_API_KEY``."""
    return environment.get("CO_API_KEY") or environment.get("COHERE_API_KEY") or ""


_PLACEHOLDER = re.compile(
    r"<.*>|\{.*\}|\[.*\]|%\w+%|\$\{?\w+\}?"  # <YOUR API KEY>, {{KEY}}, [key], %KEY%, $KEY, ${KEY}
    r"|.*\.\.\.|.*\u2026"  # sk-...
    r"|(?i:(YOUR|INSERT|ENTER)[-_ ]([A-Z0-9]+[-_ ])*(KEY|TOKEN)([-_ ]HERE)?)"
    r"|(CO|COHERE)_API_KEY",
    re.ASCII | re.DOTALL,
)
"""What documentation and templates have in place of a key."""


def checked_key(key: Secret) -> Secret | None:
    """The key without the line end that files leave; ``None`` for an empty one.

    Raises:
        ConfigurationError: it is a placeholder of some documentation, holds white space, control
            characters or other than ASCII, or is longer than 4,096 characters. The message does not
            show it.
    """
    key = Secret(reveal(key).removesuffix("\n").removesuffix("\r"))
    if not key:
        return None
    if _PLACEHOLDER.fullmatch(reveal(key)[:256].strip()):
        raise ConfigurationError(
            "the API key is a placeholder from an example or a template: put your own key there; "
            "https://dashboard.cohere.com/api-keys has it"
        )
    if _KEY.fullmatch(reveal(key)):
        return key
    if len(reveal(key)) > MAX_KEY:
        raise ConfigurationError(
            f"the API key is longer than {MAX_KEY:,} characters: that is probably another file or variable"
        )
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


def veiled(value: T) -> T | Veiled:
    """A setting that may hold a password, for as long as it has not been checked."""
    return Veiled(value) if isinstance(value, str) else value


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """A copy of extra request headers (see :func:`hidden`), safe to send.

    Raises:
        TypeError: a name or value that is no ``str``.
        ValueError: a name that is not an RFC 9110 token or belongs to the connection, or a value that
            is not printable ASCII; the message names the header and does not show the value.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("headers must map str to str")
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is not a valid header name")
        reason = _CONNECTION_HEADERS.get(name.lower())
        if reason is not None:
            raise ValueError(f"header {name!r} cannot be given: {reason}")
        if not _VALUE.fullmatch(reveal(value)):
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
