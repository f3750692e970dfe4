"""What is asked: ``ChatRequest`` with every body field of Chat v2; imports the vocabulary only.

What the server would certainly refuse is refused here, before a byte is
sent, by a ``TypeError`` or ``ValueError`` that names the argument. What only the server can judge
(whether a tool message answers a call, whether the model takes images) is left to it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

import attrs

from streamchat.protocol.keywords import wrong_option
from streamchat.protocol.messages import (
    AssistantMessage,
    Document,
    DocumentContent,
    FunctionSpec,
    ImageContent,
    SystemMessage,
    TextContent,
    ThinkingContent,
    Tool,
    ToolMessage,
    UserMessage,
)
from streamchat.protocol.plain import (
    MAX_DEPTH,
    Model,
    as_dict,
    copied,
    dumped,
    encode_json,
    encode_plain,
    is_list,
    is_mapping,
    to_plain,
)
from streamchat.protocol.record import FrozenRecord
from streamchat.protocol.response import ChatResponse

__all__ = [
    "AnyMessage",
    "ChatOptions",
    "CommonOptions",
    "ChatRequest",
    "Messages",
    "check_names",
    "checked_extra_body",
    "plain_message",
    "plain_messages",
]

AnyMessage = (
    Mapping[str, Any]
    | SystemMessage
    | UserMessage
    | AssistantMessage
    | ToolMessage
    | ChatResponse
    | Model
)
"""One turn: a dict in the wire's shape, a message class, an earlier answer, or a pydantic object."""

Messages = str | Sequence[AnyMessage]
"""A conversation: one user turn as ``str``, or a list of turns."""

_REQUIRED_KEYS: Mapping[str, tuple[str, ...]] = {
    "system": ("content",),
    "user": ("content",),
    "assistant": (),
    "tool": ("tool_call_id", "content"),
}
"""The roles, and what a message of each must have."""

MAX_STOP_SEQUENCES = 5
MAX_SEED = 2**64 - 1


class CommonOptions(TypedDict, total=False):
    """The body fields that every kind of request takes, besides ``model`` and ``messages``.

    All are optional; what is left out, or ``None``, is not sent, and the server's default holds.
    """

    documents: Sequence[str | Mapping[str, Any] | Document | Model] | None
    """Material to answer from and to cite."""
    citation_options: Mapping[str, Any] | Model | None
    """``{"mode": "ENABLED" | "DISABLED" | "FAST" | "ACCURATE" | "OFF"}``."""
    safety_mode: str | None
    """``"CONTEXTUAL"`` (the server's default), ``"STRICT"`` or ``"OFF"``."""
    max_tokens: int | None
    """At most so many tokens of answer, from 1."""
    stop_sequences: Sequence[str] | None
    """At most 5; the text that stopped is not returned."""
    temperature: float | None
    """0 to 1; the server's default is 0.3."""
    seed: int | None
    """0 to 2^64-1; best effort."""
    frequency_penalty: float | None
    """0 to 1; 0 by default."""
    presence_penalty: float | None
    """0 to 1; 0 by default."""
    k: int | None
    """0 (off, the default) to 500."""
    p: float | None
    """0 to 1; 0.75 by default."""
    logprobs: bool | None
    """Log probabilities with each content delta."""
    thinking: Mapping[str, Any] | Model | None
    """``{"type": "enabled" | "disabled", "token_budget": n}``."""
    priority: int | None
    """0 (highest, the default) to 999."""
    extra_body: Mapping[str, Any] | Model | None
    """Body fields that this version does not know, for gateways; sent beside the others."""


class ChatOptions(CommonOptions, total=False):
    """The body fields besides ``model`` and ``messages``: keywords of ``chat`` and ``chat_stream``."""

    tools: Sequence[Mapping[str, Any] | Tool | Model | Callable[..., Any]] | None
    """Functions the model may call."""
    strict_tools: bool | None
    """Beta: calls must match the definitions."""
    tool_choice: str | None
    """``"REQUIRED"`` or ``"NONE"``; leave out for the model's choice. Needs ``tools``."""
    response_format: Mapping[str, Any] | Model | None
    """``{"type": "json_object", "json_schema": {...}}``; not with ``documents`` or ``tools``."""


def _model(request: object, field: "attrs.Attribute[Any]", value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"model must be a str, not {type(value).__name__}")
    if not value:
        raise ValueError("model is an empty str")


def _flag(request: object, field: "attrs.Attribute[Any]", value: Any) -> None:
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{field.name} must be True or False, not {type(value).__name__}")


def _number(low: float, high: float, *, whole: bool = False) -> Callable[..., None]:
    kinds = int if whole else int | float

    def check(request: object, field: "attrs.Attribute[Any]", value: Any) -> None:
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, kinds):
            wanted = "an int" if whole else "a number"
            raise TypeError(f"{field.name} must be {wanted}, not {type(value).__name__}")
        if not low <= value <= high:
            raise ValueError(f"{field.name} must be from {low} to {high}, not {value}")

    return check


def _one_of(*allowed: str) -> Callable[..., None]:
    def check(request: object, field: "attrs.Attribute[Any]", value: Any) -> None:
        if value is None:
            return
        if not isinstance(value, str):
            raise TypeError(f"{field.name} must be a str, not {type(value).__name__}")
        if value.upper() not in allowed:
            raise ValueError(f"{field.name} must be one of {', '.join(allowed)}, not {value!r}")

    return check


def _object(key: str, *allowed: str, required: bool = True) -> Callable[..., None]:
    """A mapping whose ``key`` holds one of ``allowed``, in any case."""

    def check(request: object, field: "attrs.Attribute[Any]", value: Any) -> None:
        if value is None:
            return
        if not is_mapping(value):
            raise TypeError(f"{field.name} must be a dict, not {type(value).__name__}")
        choice = value.get(key)
        if choice is None and not required:
            return
        if not isinstance(choice, str) or choice.upper() not in (name.upper() for name in allowed):
            raise ValueError(
                f"{field.name}[{key!r}] must be one of {', '.join(allowed)}, not {choice!r}"
            )

    return check


def _strings(request: object, field: "attrs.Attribute[Any]", value: Any) -> None:
    if value is None:
        return
    if not is_list(value):
        raise TypeError(f"{field.name} must be a list of str, not {type(value).__name__}")
    if not all(isinstance(item, str) for item in value):
        raise TypeError(f"{field.name} must hold nothing but str")
    if len(value) > MAX_STOP_SEQUENCES:
        raise ValueError(f"{field.name} takes at most {MAX_STOP_SEQUENCES}, not {len(value)}")


def _documents(request: object, field: "attrs.Attribute[Any]", value: Any) -> None:
    for position, item in _items(field.name, value):
        if is_mapping(item):
            if "data" not in item:
                raise ValueError(
                    f"{field.name}[{position}] must have 'data': "
                    '{"data": {"text": "..."}, "id": "optional"}'
                )
        elif not isinstance(item, str | Document):
            raise TypeError(
                f"{field.name}[{position}] must be a str, a dict with 'data' or a Document, "
                f"not {type(item).__name__}"
            )


def _as_documents(value: Any) -> Any:
    """``documents`` with instances of pydantic classes as documents."""
    if value is None or not is_list(value):
        return value
    return [
        item if item.__class__ in _OURS else _as_document(item, place)
        for place, item in enumerate(value)
    ]


def _as_document(item: Any, position: int) -> Any:
    """A pydantic object as a document: itself if it is one on the wire, else the document's data.

    A ``None`` in the user's data stays, as ``null``; without an id, a document has no ``id``.
    """
    by_pydantic = dumped(item, f"documents[{position}]")
    if by_pydantic is None:
        return item
    if is_mapping(by_pydantic) and "data" in by_pydantic:
        return {key: part for key, part in by_pydantic.items() if key == "data" or part is not None}
    # A RootModel is what it holds: text is a document too, and anything else is refused.
    return {"data": by_pydantic} if is_mapping(by_pydantic) else by_pydantic


def _as_tools(value: Any) -> Any:
    """``tools`` with instances of pydantic classes as dicts."""
    if value is None or not is_list(value):
        return value
    return [
        item if item.__class__ in _OURS else _as_wire(item, f"tools[{place}]")
        for place, item in enumerate(value)
    ]


_OURS = frozenset({dict, str, Document, Tool})
"""Classes that no pydantic class is."""


def _as_wire(value: Any, path: str) -> Any:
    """An instance of a pydantic class as an object of a request, without what is ``None``."""
    by_pydantic = dumped(value, path, omit_none=True)
    return value if by_pydantic is None else by_pydantic


def _as_citation_options(value: Any) -> Any:
    return None if value is None else _as_wire(value, "citation_options")


def _as_response_format(value: Any) -> Any:
    return None if value is None else _as_wire(value, "response_format")


def _as_thinking(value: Any) -> Any:
    return None if value is None else _as_wire(value, "thinking")


def _tools(request: object, field: "attrs.Attribute[Any]", value: Any) -> None:
    for position, item in _items(field.name, value):
        if _is_usual_tool(item) or isinstance(item, Tool):
            continue
        if not is_mapping(item):
            raise TypeError(
                f"{field.name}[{position}] must be a dict or a Tool, not {type(item).__name__}"
            )
        function = item.get("function")
        if function.__class__ is not dict:
            function = _as_wire(function, f"{field.name}[{position}]['function']")
        if isinstance(function, FunctionSpec):
            continue
        if not is_mapping(function) or not isinstance(function.get("name"), str):
            raise ValueError(
                f"{field.name}[{position}] must look like "
                '{"type": "function", "function": {"name": "...", "parameters": {...}}}'
            )


def _is_usual_tool(item: Any) -> bool:
    """Whether it is a dict with a named function, as most are; others may be tools too."""
    function: Any = item.get("function") if item.__class__ is dict else item
    return function.__class__ is dict and function.get("name").__class__ is str


def check_names(options: Iterable[str]) -> None:
    """Refuse keywords that are no options of a request.

    Raises:
        TypeError: the message names the one that was meant, or what to write instead.
    """
    for name in options:
        if name not in ChatOptions.__annotations__:
            raise wrong_option(name, {*ChatOptions.__annotations__, *_KEYWORDS})


_KEYWORDS = (
    *("model", "messages", "handlers", "data", "timeout", "retry", "headers", "limiter"),
    "max_answer_bytes",
)
"""Keywords of a call that are not options: they may be misspelt too."""


def checked_extra_body(value: Any) -> dict[str, Any] | None:
    """A plain copy of body fields that this version does not know; ``None`` if there are none.

    Raises:
        TypeError: not a mapping of ``str``, a field of Chat v2 (the message names the argument that
            is meant), or something that JSON cannot say.
        ValueError: as :func:`~streamchat.protocol.plain.to_plain`.
    """
    if value is None:
        return None
    value = _as_wire(value, "extra_body")
    if not is_mapping(value):
        raise TypeError(f"extra_body must be a dict, not {type(value).__name__}")
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"extra_body must have str keys, not {type(name).__name__}")
        if name == "stream":
            raise TypeError("extra_body cannot hold 'stream': every answer is streamed")
        if name in _FIELDS and name != "extra_body":
            raise TypeError(f"extra_body cannot hold {name!r}: pass {name}= instead")
    plain: dict[str, Any] = to_plain(value, "extra_body", omit_none=True)
    return plain or None


def _items(name: str, value: Any) -> Iterable[tuple[int, Any]]:
    if value is None:
        return ()
    if not is_list(value):
        raise TypeError(f"{name} must be a list, not {type(value).__name__}")
    return enumerate(value)


def plain_messages(messages: Any) -> tuple[dict[str, Any], ...]:
    """Any form of ``messages`` as wire-shaped dicts of our own.

    Raises:
        TypeError, ValueError: nothing to ask, or a turn that is none.
    """
    if isinstance(messages, str):
        if not messages:
            raise ValueError("messages is an empty str: there is nothing to ask")
        messages = [{"role": "user", "content": messages}]
    if not is_list(messages):
        raise TypeError(
            f"messages must be a str or a list of messages, not {type(messages).__name__}"
        )
    if not messages:
        raise ValueError("messages is an empty list: there is nothing to ask")
    try:
        return tuple([_usual_message(message) for message in messages])
    except Exception:  # noqa: BLE001, S110  # values may have methods of the caller's
        pass  # the long way takes more, and says what is wrong where
    return tuple(
        [plain_message(message, f"messages[{place}]") for place, message in enumerate(messages)]
    )


def _usual_message(message: Any) -> dict[str, Any]:
    """What :func:`plain_message` returns for what most messages are.

    Raises:
        Exception: of any kind; it is something else, or :func:`plain_message` raises.
    """
    cls = message.__class__
    if cls is not dict and cls not in _MESSAGE_CLASSES:
        raise TypeError
    content = message.get("content") if cls is dict else message.content
    if not (content is None or content.__class__ is str or content.__class__ is list):
        raise TypeError
    plain: dict[str, Any] = copied(message, MAX_DEPTH, True)
    for key in _REQUIRED_KEYS[plain["role"]]:
        if key not in plain:
            raise ValueError
    return plain if cls is dict else {"role": plain["role"], **plain}


_MESSAGE_CLASSES = frozenset({SystemMessage, UserMessage, AssistantMessage, ToolMessage})


def plain_message(message: Any, path: str, *, levels: int = MAX_DEPTH) -> dict[str, Any]:
    """One turn as a wire-shaped dict of our own.

    Args:
        message: see :data:`AnyMessage`.
        path: how the turn is named in an error.
        levels: how many levels of nesting are allowed.

    Raises:
        TypeError: something else, or something in it that JSON cannot say.
        ValueError: no role, an unknown one, or a role without what it must have.
    """
    if isinstance(message, ChatResponse):
        message = message.to_message()
    message = _as_wire(message, path)
    if isinstance(message, SystemMessage | UserMessage | AssistantMessage | ToolMessage):
        message = {"role": message.role, **as_dict(message)}
    if not is_mapping(message):
        raise TypeError(
            f"{path} must be a dict, a message class or a ChatResponse, "
            f"not {type(message).__name__}"
        )
    role = message.get("role")
    if role is None and "message" in message:
        raise ValueError(f"{path} looks like a whole response: pass its 'message'")
    if not isinstance(role, str) or role not in _REQUIRED_KEYS:
        raise ValueError(f"{path}['role'] must be one of {', '.join(_REQUIRED_KEYS)}, not {role!r}")
    for key in _REQUIRED_KEYS[role]:
        if key not in message:
            raise ValueError(f"{path} has the role {role!r} and must have {key!r}")
    content = _content(message.get("content"), f"{path}['content']")
    if content is not message.get("content"):
        message = {**message, "content": content}
    plain: dict[str, Any] = to_plain(message, path, levels=levels, omit_none=True)
    return plain


def _content(content: Any, path: str) -> Any:
    """What a message says: text, parts, or one part that is not in a list, as the API takes it too.

    A pydantic object that is not a part is data of the user's: its JSON text, with ``null`` for ``None``.

    Raises:
        TypeError: none of these.
    """
    if content is None or isinstance(content, str) or is_list(content):
        return content
    if isinstance(content, TextContent | ThinkingContent | ImageContent | DocumentContent):
        return content
    data = dumped(content, path)
    if data is not None:
        return _as_wire(content, path) if _is_part(data) else encode_json(data).decode()
    if not _is_part(content):
        raise TypeError(
            f"{path} must be a str or a list of parts, not {type(content).__name__}; "
            "json.dumps() makes a str of a value"
        )
    return content


def _is_part(value: Any) -> bool:
    """Whether it looks like a content part: an object whose ``type`` is one of its keys."""
    kind = value.get("type") if is_mapping(value) else None
    return isinstance(kind, str) and kind != "type" and kind in value


_UNIT_INTERVAL = _number(0, 1)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ChatRequest(FrozenRecord):
    """One request body, checked and independent of what it was made from.

    Raises:
        TypeError: an argument of the wrong type, or unknown, or that JSON cannot say.
        ValueError: an argument that no server accepts.
    """

    model: str = attrs.field(validator=_model)
    """``model``"""
    messages: tuple[dict[str, Any], ...] = attrs.field(converter=plain_messages)
    """``messages``: wire-shaped dicts; see :data:`Messages` for what may be given."""
    tools: Sequence[Mapping[str, Any] | Tool] | None = attrs.field(
        default=None, converter=_as_tools, validator=_tools
    )
    """``tools``"""
    strict_tools: bool | None = attrs.field(default=None, validator=_flag)
    """``strict_tools``"""
    tool_choice: str | None = attrs.field(default=None, validator=_one_of("REQUIRED", "NONE"))
    """``tool_choice``"""
    documents: Sequence[str | Mapping[str, Any] | Document] | None = attrs.field(
        default=None, converter=_as_documents, validator=_documents
    )
    """``documents``"""
    citation_options: Mapping[str, Any] | None = attrs.field(
        default=None,
        converter=_as_citation_options,
        validator=_object("mode", "ENABLED", "DISABLED", "FAST", "ACCURATE", "OFF"),
    )
    """``citation_options``"""
    response_format: Mapping[str, Any] | None = attrs.field(
        default=None,
        converter=_as_response_format,
        validator=_object("type", "text", "json_object"),
    )
    """``response_format``"""
    safety_mode: str | None = attrs.field(
        default=None, validator=_one_of("CONTEXTUAL", "STRICT", "OFF")
    )
    """``safety_mode``"""
    max_tokens: int | None = attrs.field(default=None, validator=_number(1, 2**31 - 1, whole=True))
    """``max_tokens``"""
    stop_sequences: Sequence[str] | None = attrs.field(default=None, validator=_strings)
    """``stop_sequences``"""
    temperature: float | None = attrs.field(default=None, validator=_UNIT_INTERVAL)
    """``temperature``"""
    seed: int | None = attrs.field(default=None, validator=_number(0, MAX_SEED, whole=True))
    """``seed``"""
    frequency_penalty: float | None = attrs.field(default=None, validator=_UNIT_INTERVAL)
    """``frequency_penalty``"""
    presence_penalty: float | None = attrs.field(default=None, validator=_UNIT_INTERVAL)
    """``presence_penalty``"""
    k: int | None = attrs.field(default=None, validator=_number(0, 500, whole=True))
    """``k``"""
    p: float | None = attrs.field(default=None, validator=_UNIT_INTERVAL)
    """``p``"""
    logprobs: bool | None = attrs.field(default=None, validator=_flag)
    """``logprobs``"""
    thinking: Mapping[str, Any] | None = attrs.field(
        default=None,
        converter=_as_thinking,
        validator=_object("type", "enabled", "disabled", required=False),
    )
    """``thinking``"""
    priority: int | None = attrs.field(default=None, validator=_number(0, 999, whole=True))
    """``priority``"""
    extra_body: Mapping[str, Any] | None = attrs.field(default=None, converter=checked_extra_body)
    """Fields of the body that are none of the above; :meth:`to_dict` has them beside the others."""

    def __attrs_post_init__(self) -> None:
        if self.tool_choice is not None and not self.tools:
            raise ValueError("tool_choice needs tools")
        wants_json = self.response_format is not None and (
            str(self.response_format.get("type")).lower() == "json_object"
        )
        if wants_json and (self.tools or self.documents):
            raise ValueError("response_format json_object cannot go with tools or documents")
        for name in _COPIED:
            value = getattr(self, name)
            if value is not None:
                value = to_plain(value, name, levels=MAX_DEPTH, omit_none=True)
                object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        # A prompt shows by its size alone, and a request that failed to be made shows what it has:
        # tracebacks with locals ask for it.
        messages = getattr(self, "messages", ())
        return f"<ChatRequest model={getattr(self, 'model', None)!r} messages={len(messages)}>"

    @classmethod
    def build(cls, messages: Messages, model: str, options: Mapping[str, Any]) -> "ChatRequest":
        """A request from a call's arguments.

        Raises:
            TypeError: an unknown option; the message suggests the one that was meant.
        """
        check_names(options)
        return cls(model=model, messages=messages, **options)

    def to_dict(self, *, stream: bool = True) -> dict[str, Any]:
        """The JSON body as plain data of its own; what is ``None`` is left out."""
        body: dict[str, Any] = {}
        for name, value in self._given():
            body[name] = to_plain(value, name)
        body |= body.pop("extra_body", {})
        body["stream"] = stream
        return body

    def encode(self, *, is_untouched: bool = False) -> bytes:
        """The JSON body as it is sent.

        Args:
            is_untouched: whether nobody has had this request in hands since it was made. Fields cannot
                be set, but what they hold can be changed in place; then all of it is checked again.

        Raises:
            TypeError, ValueError: somebody put something into it that JSON cannot say; the message says
                where.
        """
        if is_untouched:
            body = {
                name: value if type(value) in _ENCODED else to_plain(value, name)
                for name, value in self._given()
            }
            body |= body.pop("extra_body", {})
            body["stream"] = True
            try:
                return encode_plain(body)
            except (TypeError, ValueError):
                pass  # the model's name may be text that is not Unicode; the long way says so
        return encode_json(self.to_dict())

    def _given(self) -> Iterator[tuple[str, Any]]:
        """The fields that are given, in order."""
        for name in _NAMES:
            value = getattr(self, name)
            if value is not None:
                yield name, value


_COPIED = (
    *("tools", "documents", "citation_options", "response_format", "stop_sequences", "thinking"),
)
"""Fields that hold objects of the caller's until they are copied."""
_ENCODED = frozenset({str, int, float, bool, list, tuple, dict})
"""Types that JSON encoding writes as :func:`to_plain` would have them; subclasses may differ."""
_NAMES = tuple(field.name for field in attrs.fields(ChatRequest))
_FIELDS = frozenset(_NAMES)
