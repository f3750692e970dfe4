"""What everything here needs of Ray: the library itself, loaded late, and settings that show nowhere."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from streamchat.client import Client
from streamchat.protocol.errors import ConfigurationError

__all__ = ["Sealed", "client_of", "first_line", "library", "sealed_client"]


def library() -> Any:
    """Ray; untyped, as it is not there for those who check types without the extra.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise ConfigurationError(
            "fan-out over a cluster needs Ray: pip install 'streamchat[ray]'"
        ) from None


class Sealed:
    """A value that pickles, for it has to travel, and shows itself in no ``repr``, log or dashboard.

    It travels as Ray sends everything: unencrypted, unless the cluster uses TLS.
    """

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def open(self) -> Any:
        """The value."""
        return self._value

    def __repr__(self) -> str:
        return "<sealed>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Sealed, (self._value,)


def sealed_client(client: Any) -> Sealed:
    """Settings of a client, or a function that makes one, for :func:`client_of`.

    Raises:
        TypeError: neither of them; an open ``Client`` among others, whose connections cannot travel.
    """
    if client is None:
        return Sealed({})
    if isinstance(client, Mapping):
        return Sealed({**client})
    if callable(client) and not isinstance(client, Client):
        return Sealed(client)
    raise TypeError(
        "client must be a dict of Client's keywords or a function that returns a Client, "
        f"not {type(client).__name__}: it is made anew in each actor"
    )


def client_of(sealed: Sealed) -> Client:
    """The client that was meant; in an actor.

    Raises:
        ConfigurationError, TypeError, ValueError: as ``Client`` does.
    """
    value: Mapping[str, Any] | Callable[[], Any] = sealed.open()
    client = Client(**value) if isinstance(value, Mapping) else value()
    if not isinstance(client, Client):
        raise TypeError(f"client must return a Client, not {type(client).__name__}")
    return client


def first_line(error: BaseException) -> str:
    """What Ray says, without the pages that follow."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
