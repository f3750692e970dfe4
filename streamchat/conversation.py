"""``Conversation``: turns kept, trimmed, saved as JSON and taken up again; no I/O, no waiting.

Turns are stored as checked, wire-shaped plain dicts, whatever they were given as:
that is what a request sends and what JSON can say, so nothing changes on the way to a database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Self, TypeGuard

import attrs

from streamchat.limiter import estimate_tokens
from streamchat.protocol.messages import ImageContent, TextContent
from streamchat.protocol.plain import (
    MAX_DEPTH,
    copied,
    decode_json,
    encode_json,
    is_list,
    is_mapping,
)
from streamchat.protocol.request import AnyMessage, plain_message
from streamchat.protocol.response import ChatResponse

__all__ = ["Conversation", "TrimRule", "last_tokens", "last_turns"]

MOST_SHOWN = 50
"""Turns that a notebook shows."""
MOST_TOKENS = 10**15
"""A count beyond it is nonsense; a JSON integer may be too large for a float."""

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

    The token counts of the answers that are added (``usage.tokens``) are remembered for
    :func:`last_tokens`. Copies and pickles have them; JSON, which is the messages alone, does not.
    """

    _messages: list[dict[str, Any]]
    _counts: list[int | None] = attrs.field(eq=False)
    """Tokens of each message, as far as the server has told."""

    def __init__(self, messages: Iterable[AnyMessage] = (), *, system: str | None = None) -> None:
        """Begin a conversation.

        Args:
            messages: what was said before, for example the ``messages`` of a tool run.
            system: what the model is told to be: a system message before them. Default: none.

        Raises:
            TypeError, ValueError: as :meth:`add`.
        """
        first = [] if system is None else [{"role": "system", "content": system}]
        self._messages, self._counts = _counted([*first, *_several(messages, "messages")], [], [])

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
        self._messages, self._counts = _counted(messages, self._messages, self._counts)

    def replace(self, messages: Iterable[AnyMessage]) -> None:
        """Put other messages in place of all: a tool run's whole history, or a summary.

        Messages that were here before keep their token counts.

        Raises:
            TypeError, ValueError: as :meth:`add`.
        """
        self._put(_several(messages, "messages"))

    def trim(self, rule: TrimRule) -> None:
        """Keep what a rule keeps: :func:`last_turns`, :func:`last_tokens`, or a function of yours.

        For a rule that has to wait (the model writes a summary) use :meth:`replace`.

        Raises:
            TypeError, ValueError: the rule gave something else than messages.
        """
        if isinstance(rule, _LastTokens):
            kept = rule.kept(self._messages, self._counts)
            self._messages = [self._messages[at] for at in kept]
            self._counts = [self._counts[at] for at in kept]
        else:
            self._put(_several(rule(self.messages), "what the rule returned"))

    def _put(self, messages: Iterable[Any]) -> None:
        """Put messages in place of all; those that were here before keep their counts."""
        known: dict[bytes, list[int]] = {}
        for message, count in zip(self._messages, self._counts, strict=True):
            if count is not None:
                known.setdefault(encode_json(message), []).append(count)
        put, counts = _counted(messages, [], [])
        if known:
            # From the end: of equal messages, the newest are those that most rules keep.
            for position in reversed(range(len(put))):
                if left := known.get(encode_json(put[position])):
                    counts[position] = left.pop()
        self._messages, self._counts = put, counts

    def copy(self) -> Self:
        """A branch: what is added to one of the two is not in the other."""
        branch = type(self)()
        branch._messages = list(self._messages)  # shared dicts: nobody outside has hold of them
        branch._counts = list(self._counts)
        return branch

    __copy__ = copy

    def to_json(self) -> str:
        """The messages as a JSON array (RFC 8259), compact; :meth:`from_json` reads it."""
        return encode_json(self._messages).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The conversation that :meth:`to_json` wrote, or any JSON array of Chat v2 messages.

        Its tokens are estimated until the next answer is added.

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
        return iter([copied(message, MAX_DEPTH, False) for message in self._messages])

    def __repr__(self) -> str:
        # Sizes only: what people say to each other has no place in a log.
        turns = sum(message["role"] == "user" for message in self._messages)
        return f"<Conversation messages={len(self)} user={turns}>"

    def _repr_markdown_(self) -> str:
        """How a notebook shows the conversation: the system messages and the last 50 turns."""
        from streamchat.markdown import conversation_markdown  # most programs show nothing

        shown = last_turns(MOST_SHOWN)(self._messages)
        return conversation_markdown(shown, len(_turn_begins(self._messages)) - MOST_SHOWN)


def _is_several(value: object) -> TypeGuard[Iterable[Any]]:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _several(messages: object, name: str) -> Iterable[Any]:
    if not _is_several(messages):
        raise TypeError(f"{name} must be a list of messages, not {type(messages).__name__}")
    return messages


def _counted(
    messages: Iterable[Any], before: list[dict[str, Any]], counts: list[int | None]
) -> tuple[list[dict[str, Any]], list[int | None]]:
    """New lists: the messages before and those that are added, and the tokens of each.

    The input of an answer is all that stands before it, so what the server counted and is not known
    yet belongs to the messages whose counts are not known: usually those since the last answer, and
    in the first answer also the server's own part of the prompt, tools and documents.
    """
    put, tokens = list(before), list(counts)
    for message in messages:
        # The JSON array around it is a level too, so that from_json() reads what to_json() writes.
        place = f"messages[{len(put)}]"
        plain = plain_message(message, place, levels=MAX_DEPTH - 1)
        own: int | None = None
        if isinstance(message, ChatResponse):
            own = _believed(message.usage.tokens.output_tokens)
            read = _believed(message.usage.tokens.input_tokens)
            if read is not None:
                _share(read, put, tokens)
        put.append(plain)
        tokens.append(own)
    return put, tokens


def _believed(count: float | None) -> int | None:
    return round(count) if count is not None and 0 < count <= MOST_TOKENS else None


def _share(total: int, messages: list[dict[str, Any]], counts: list[int | None]) -> None:
    """Give those of unknown count the rest of a total, by estimated size.

    A rest that is not above 0 contradicts the counts before: the answer was asked for with fewer
    messages than these. Then nothing is learned.
    """
    unknown = [position for position, count in enumerate(counts) if count is None]
    rest = total - sum(count for count in counts if count is not None)
    if not unknown or rest <= 0:
        return
    sizes = accumulate((_estimate(messages[position]) for position in unknown), initial=0)
    ends = list(sizes)
    shares = pairwise(
        rest * end // ends[-1] for end in ends
    )  # whole tokens that add up to the rest
    for position, (start, end) in zip(unknown, shares, strict=True):
        counts[position] = end - start


def _estimate(message: Mapping[str, Any]) -> int:
    """Tokens of a message, roughly: at least 1, so that sizes can be compared."""
    return max(1, estimate_tokens(encode_json(message), 0))


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


def last_tokens(count: int) -> TrimRule:
    """A rule for :meth:`Conversation.trim`: as many of the last turns as fit, and system messages.

    Turns are those of :func:`last_turns` and are kept whole, the newest first. System messages are
    always kept and count as well. So is the newest turn, even if it does not fit alone: the server
    refuses a request without a message of the user.

    Tokens are those that the server counted: the output of an answer that was added as a
    ``ChatResponse``, and the input of the next one, shared among the messages between them by size.
    Where there is no count (no answer yet, or read from JSON) they are estimated as
    :class:`~streamchat.Limiter` estimates them: a byte of the message's JSON is a quarter of a token.
    That is far too high for an image in a data URI that no answer has counted.

    The server's own part of the prompt, tools and documents count with the messages before the first
    answer. Leave room for them, and for the next answer.

    Args:
        count: tokens that the kept messages may have, from 1.

    Raises:
        TypeError: not an int.
        ValueError: below 1; for the system messages alone use ``last_turns(0)``.
    """
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"count must be an int, not {type(count).__name__}")
    if count < 1:
        raise ValueError(
            f"count must be from 1, not {count}: last_turns(0) keeps the system messages alone"
        )
    return _LastTokens(count)


@attrs.frozen
class _LastTokens:
    """The rule of :func:`last_tokens`; a conversation calls :meth:`kept` with its counts."""

    budget: int

    def __call__(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [messages[at] for at in self.kept(messages, [None] * len(messages))]

    def kept(self, messages: list[dict[str, Any]], counts: Sequence[int | None]) -> list[int]:
        """The places of the messages that fit, by these counts and estimates where there are none."""
        tokens = [
            _estimate(message) if count is None else count
            for message, count in zip(messages, counts, strict=True)
        ]
        is_system = [message["role"] == "system" for message in messages]
        total = sum(size for size, always in zip(tokens, is_system, strict=True) if always)
        # Messages before the first of the user are one turn more, the oldest.
        begins = sorted({0, *_turn_begins(messages)})
        cut = end = len(messages)
        for begin in reversed(begins):
            turn = [tokens[at] for at in range(begin, end) if not is_system[at]]
            total += sum(turn)
            if total > self.budget and cut < len(messages):
                break
            # Without anything but system messages there is no turn that could be the newest.
            cut = begin if turn else cut
            end = begin
        return [at for at in range(len(messages)) if at >= cut or is_system[at]]


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
