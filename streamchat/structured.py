"""Answers as values of the caller's types: ``ParsedAnswer``, made by ``Client.parse``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from streamchat.dispatcher import Dispatcher
from streamchat.protocol.errors import ConfigurationError, StructureError
from streamchat.protocol.events import ContentDelta, Event
from streamchat.protocol.growing import ESCAPE, read_beginning
from streamchat.protocol.kinds import Misfit
from streamchat.protocol.messages import UserMessage
from streamchat.protocol.plain import decode_json, is_mapping
from streamchat.protocol.request import AnyMessage
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.schema import answer_of
from streamchat.runs import Run
from streamchat.stream import ChatStream

__all__ = ["ParsedAnswer", "asking_for_json", "read_answer", "response_format"]

T = TypeVar("T")

ALWAYS_FRESH = 4096
"""Characters up to which each look at ``partial`` parses anew what has come since the last."""
STEP = 16
"""Above that, only when a sixteenth has come: so all looks together cost some 17 times one parse,
however many there are, and a look is at most a sixteenth behind."""


def response_format(into: Any) -> dict[str, Any]:
    """The body field that asks for a type.

    Raises:
        TypeError: no class with fields, or a field that JSON cannot hold.
    """
    return {"type": "json_object", "json_schema": answer_of(into).schema}


_ASK = "Answer with a JSON object that fits the given schema, and with nothing else."


def asking_for_json(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages, with a system line where none of them says JSON.

    Without such a word a model may write on until its tokens are used up, as Cohere documents.
    """
    asked = list(messages)
    if any("json" in text.lower() for message in asked for text in _texts(message)):
        return asked
    if asked[0]["role"] != "system":
        return [{"role": "system", "content": _ASK}, *asked]
    first = asked[0]
    content = first["content"]
    added = f"{content}\n{_ASK}" if isinstance(content, str) else [*_parts(content), _text(_ASK)]
    return [{**first, "content": added}, *asked[1:]]


def _texts(message: Mapping[str, Any]) -> list[str]:
    """The words of a message alone: an image in base64 says ``json`` by chance."""
    content = message.get("content")
    if isinstance(content, str):
        return [content]
    texts = [part.get("text") for part in _parts(content) if is_mapping(part)]
    return [text for text in texts if isinstance(text, str)]


def _parts(content: Any) -> Sequence[Any]:
    """The parts of a content that is not text; a single one need not be in a list."""
    return [content] if is_mapping(content) else content or ()


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


class Start(Protocol):
    """How it asks: a client's ``chat_stream`` with all else filled in."""

    def __call__(
        self,
        messages: Sequence[AnyMessage],
        /,
        *,
        first: Dispatcher,
        handlers: Iterable[Dispatcher],
    ) -> ChatStream: ...


class ParsedAnswer(Run[Event, T]):
    """An answer that becomes a value of the caller's type. Made by :meth:`streamchat.Client.parse`.

    Awaiting gives the value; iterating gives the events, and :attr:`partial` what the JSON says so
    far. With a repair round the events of both answers come, one after the other.

    Raises (while it is consumed): what a stream raises; :class:`~streamchat.StructureError` when the
    answer does not fit, with the text in ``.text`` and the answer in ``.partial``.
    """

    def __init__(
        self,
        start: Start,
        messages: Sequence[AnyMessage],
        into: type[T],
        *,
        repair: bool,
        dispatchers: Sequence[Dispatcher],
        data: Any,
    ) -> None:
        super().__init__(dispatchers, data)
        self._start = start
        self._messages = messages
        self._into = into
        self._repair = repair
        self._growing = _GrowingJson()
        self._response: ChatResponse | None = None
        # Made now, so that what is wrong with the call is said where it stands; nothing is sent.
        self._first = self._ask(messages)

    @property
    def response(self) -> ChatResponse | None:
        """The last answer as it came; ``None`` before it is complete."""
        return self._response

    @property
    def partial(self) -> Any:
        """What the JSON says so far, as plain data that may lack anything; ``None`` before it begins.

        The text of an unfinished string is there as far as it came; an unfinished number is not there
        yet. Parsed when asked for: always up to date below 4,096 characters and at the end, at most a
        sixteenth behind in between.

        Raises:
            ConfigurationError: the package ``jiter`` is missing (``pip install 'streamchat[partial]'``).
        """
        return self._growing.read(whole=self._response is not None)

    def __repr__(self) -> str:
        state = "complete" if self._is_done else "new" if self._generator is None else "open"
        return f"<ParsedAnswer into={getattr(self._into, '__name__', self._into)} {state}>"

    async def _events(self) -> AsyncGenerator[Event, None]:
        stream, rounds = self._first, 2 if self._repair else 1
        self._freeze(stream.request)
        while True:
            self._check_open()
            self._stream = stream
            async with stream:
                async for event in stream:
                    yield event
            self._response = response = await stream
            try:
                self._result = read_answer(response, self._into)
            except StructureError as error:
                rounds -= 1
                if not rounds:
                    await self._told(error)
                    raise
                self._growing, self._response = _GrowingJson(), None
                stream = self._ask([*self._messages, response, _complaint(error)])
            else:
                return

    def _ask(self, messages: Sequence[AnyMessage]) -> ChatStream:
        # Before the caller's handlers, so that they find in `partial` what they have just heard.
        first = Dispatcher()
        first.on_content_delta(self._growing.add)
        return self._start(messages, first=first, handlers=self._own_handlers)


class _GrowingJson:
    """JSON text that grows, and what it says so far: linear in the text, however often it is read."""

    def __init__(self) -> None:
        self._text = ""
        self._new: list[str] = []
        self._behind = 0
        self._in_string = False
        self._half_escape = ""
        self._value: Any = None

    def add(self, event: ContentDelta) -> None:
        self._new.append(event.text)
        self._behind += len(event.text)

    def read(self, *, whole: bool) -> Any:
        length, behind = len(self._text), self._behind
        if behind and (whole or length + behind <= ALWAYS_FRESH or behind * STEP >= length):
            new = "".join(self._new)
            self._text, self._new, self._behind = self._text + new, [], 0
            self._follow(new)
            self._value = _read_partly(
                self._text, self._value, in_string=self._in_string, whole=whole
            )
        return self._value

    def _follow(self, new: str) -> None:
        """Whether the text ends inside a string."""
        unescaped = ESCAPE.sub("", self._half_escape + new)
        self._half_escape = "\\" if unescaped.endswith("\\") else ""
        self._in_string ^= unescaped.count('"') % 2 == 1


def _complaint(error: StructureError) -> UserMessage:
    return UserMessage(
        f"That does not fit the schema: {error.reason} (at {error.path}). Answer with the whole JSON "
        "object again, corrected, and with nothing else."
    )


def read_answer(response: ChatResponse, into: type[T]) -> T:
    """The value of a complete answer.

    Raises:
        StructureError: it is not JSON, or does not fit the type.
    """
    text, reason, path = response.text, "", "$"
    try:
        value: Any = decode_json(text)
    except ValueError as error:
        reason = str(error)
        if response.finish_reason == "MAX_TOKENS":
            reason += "; the answer was cut off by the limit of tokens, raise max_tokens"
    else:
        try:
            read: T = answer_of(into).read(value)
        except Misfit as misfit:
            reason, path = misfit.reason, misfit.path
        else:
            return read
    failure = StructureError(
        reason, into=getattr(into, "__name__", repr(into)), text=text, path=path
    )
    failure.partial = response
    raise failure


def _read_partly(text: str, before: Any, *, in_string: bool, whole: bool) -> Any:
    """The JSON as far as it goes; what was read before if its beginning is not JSON."""
    try:
        return read_beginning(text, "partial answers", in_string=in_string, whole=whole)
    except ConfigurationError:
        raise
    except ValueError:
        return before
