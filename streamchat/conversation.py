"""``Conversation``: turns kept, trimmed, saved as JSON and taken up again; no I/O, no waiting.

Turns are stored as checked, wire-shaped plain dicts (protocol.md 2.2), whatever they were given as:
that is what a request sends and what JSON can say, so nothing changes on the way to a database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeGuard

import attrs

from streamchat.protocol.messages import ImageContent, TextContent
from streamchat.protocol.plain import MAX_DEPTH, decode_json, encode_json, is_list, is_mapping
from streamchat.protocol.request import AnyMessage, plain_message

__all__ = ["Conversation", "TrimRule", "last_turns"]

TrimRule = Callable[[list[dict[str, Any]]], Iterable[AnyMessage]]
"""From all messages, in the wire's shape, to those that are kept (or put in their place)."""


@attrs.define(init=False, repr=False)
class Conversation:
    """The messages of a conversation, in order::

        talk = Conversation(system="Be brief.")
        talk.user("Hi")
        talk.add(await client.chat(talk.messages))
        talk.trim(last_turns(20))
        row = talk.to_json()  # and later Conversation.from_json(row)

    Compared by value; ``len`` counts messages and iteration gives them. What goes in and what comes
    out is copied. A call that raises has changed nothing. What only the server can judge (the order
    of roles, whether a tool message answers a call) is left to it.
    """

    _messages: list[dict[str, Any]]

    def __init__(self, messages: Iterable[AnyMessage] = (), *, system: str | None = None) -> None:
        """Begin a conversation.

        Args:
            messages: what was said before, for example the ``messages`` of a tool run.
            system: what the model is told to be: a system message before them. Default: none.

        Raises:
            TypeError, ValueError: as :meth:`add`.
        """
        first = [] if system is None else [{"role": "system", "content": system}]
        self._messages = _checked([*first, *_several(messages, "messages")], 0)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All messages in the wire's shape, for ``chat(...)`` or a database; a list of your own."""
        return list(self)

    def user(self, content: str | Sequence[Mapping[str, Any] | TextContent | ImageContent]) -> None:
        """Add what the user says: text, or a list of text and image parts.

        Raises:
            TypeError: something else.
            ValueError: nothing is said, which the server refuses.
        """
        if not content:
            raise ValueError("content is empty: there is nothing to ask")
        self.add({"role": "user", "content": content})

    def add(self, *messages: AnyMessage) -> None:
        """Add answers (``ChatResponse``), message objects or dicts, in order.

        Raises:
            TypeError, ValueError: one of them is no message; the error names its position.
        """
        self._messages += _checked(messages, len(self._messages))

    def replace(self, messages: Iterable[AnyMessage]) -> None:
        """Put other messages in place of all: a tool run's whole history, or a summary.

        Raises:
            TypeError, ValueError: as :meth:`add`.
        """
        self._messages = _checked(_several(messages, "messages"), 0)

    def trim(self, rule: TrimRule) -> None:
        """Keep what a rule keeps: :func:`last_turns`, or a plain function of yours.

        For a rule that has to wait (the model writes a summary) use :meth:`replace`.

        Raises:
            TypeError, ValueError: the rule gave something else than messages.
        """
        self._messages = _checked(_several(rule(self.messages), "what the rule returned"), 0)

    def copy(self) -> Self:
        """A branch: what is added to one of the two is not in the other."""
        branch = type(self)()
        branch._messages = list(self._messages)  # shared dicts: nobody outside has hold of them
        return branch

    __copy__ = copy

    def to_json(self) -> str:
        """The messages as a JSON array (RFC 8259), compact; :meth:`from_json` reads it."""
        return encode_json(self._messages).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The conversation that :meth:`to_json` wrote, or any JSON array of Chat v2 messages.

        Raises:
            ValueError: not JSON, no array, or an item that is no message; the error names the
                place and does not quote the text.
        """
        messages = decode_json(text)
        if not is_list(messages):
            raise ValueError(
                f"a conversation is a JSON array of messages, not {type(messages).__name__}"
            )
        try:
            return cls(messages)
        except TypeError as error:  # one kind of error for data that somebody else wrote
            problem = str(error)
        raise ValueError(problem)

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter([_copy(message) for message in self._messages])

    def __repr__(self) -> str:
        # Sizes only: what people say to each other has no place in a log.
        turns = sum(message["role"] == "user" for message in self._messages)
        return f"<Conversation messages={len(self)} user={turns}>"


def _is_several(value: object) -> TypeGuard[Iterable[Any]]:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _several(messages: object, name: str) -> Iterable[Any]:
    if not _is_several(messages):
        raise TypeError(f"{name} must be a list of messages, not {type(messages).__name__}")
    return messages


def _copy(plain: Any) -> Any:
    """A copy of what is known to be plain: a third of the time that checking it again takes."""
    if isinstance(plain, str):  # most of it
        return plain
    if is_mapping(plain):
        return {key: _copy(item) for key, item in plain.items()}
    return [_copy(item) for item in plain] if is_list(plain) else plain


def _checked(messages: Iterable[Any], offset: int) -> list[dict[str, Any]]:
    # The JSON array around them is a level too, so that from_json() reads what to_json() writes.
    return [
        plain_message(message, f"messages[{position}]", levels=MAX_DEPTH - 1)
        for position, message in enumerate(messages, offset)
    ]


def last_turns(count: int) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    """A rule for :meth:`Conversation.trim`: the last turns, and all system messages.

    A turn is a message of the user with all that answers it, so what is kept begins with the user,
    and tool messages stay with the assistant's message that called them. A user's message between
    a call and its results belongs to the turn of the call.

    Args:
        count: turns to keep; 0 keeps the system messages alone.

    Raises:
        TypeError: not an int.
        ValueError: below 0.
    """
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"count must be an int, not {type(count).__name__}")
    if count < 0:
        raise ValueError(f"count must be from 0, not {count}")

    def rule(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        begins = _turn_begins(messages)
        cut = len(messages) if count == 0 else begins[-count] if count <= len(begins) else 0
        return [
            message
            for position, message in enumerate(messages)
            if position >= cut or message["role"] == "system"
        ]

    return rule


def _turn_begins(messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Where a turn begins: at the user's messages, while no tool call waits for a later result."""
    caller: dict[str, int] = {}
    last_result: dict[int, int] = {}
    for position, message in enumerate(messages):
        for call_id in _call_ids(message):
            caller[call_id] = position  # the latest: ids may come again in a later turn
        answered = message.get("tool_call_id")
        if message["role"] == "tool" and isinstance(answered, str) and answered in caller:
            last_result[caller[answered]] = position
    begins: list[int] = []
    waiting_until = -1
    for position, message in enumerate(messages):
        waiting_until = max(waiting_until, last_result.get(position, -1))
        if message["role"] == "user" and position > waiting_until:
            begins.append(position)
    return begins


def _call_ids(message: Mapping[str, Any]) -> list[str]:
    """The ids of a message's tool calls; calls of another shape are the server's to refuse."""
    calls = message.get("tool_calls")
    if not is_list(calls):
        return []
    ids = [call.get("id") for call in calls if is_mapping(call)]
    return [call_id for call_id in ids if isinstance(call_id, str)]
