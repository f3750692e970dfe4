"""The vocabulary of Chat v2: messages, content, tools, documents, citations, usage.

Requests send them and answers bring them. Each field's docstring names its JSON path inside the
object. Text is always ``str`` and lists are always lists: an absent field
has its empty default here and is absent again when written (:func:`streamchat.protocol.plain
.as_dict`). All classes are attrs, compared by value, and treated as immutable; the ``repr`` of what
is sent shows its size, not its words.
"""

from collections.abc import Mapping, Sized
from typing import Any, Literal

import attrs

from streamchat.protocol.errors import ConfigurationError, ToolArgumentsError
from streamchat.protocol.growing import growing_object
from streamchat.protocol.plain import decode_json, is_mapping
from streamchat.protocol.record import Record

__all__ = [
    "AssistantMessage",
    "BilledUnits",
    "Citation",
    "Document",
    "DocumentContent",
    "FunctionSpec",
    "ImageContent",
    "ImageUrl",
    "LogprobItem",
    "Message",
    "Source",
    "SystemMessage",
    "TextContent",
    "ThinkingContent",
    "TokenCounts",
    "Tool",
    "ToolCall",
    "ToolCallFunction",
    "ToolMessage",
    "Usage",
    "UserMessage",
]


def _size(value: object) -> str:
    """How a prompt shows in a ``repr``: by its size alone."""
    return f"<{len(value)}>" if isinstance(value, Sized) else "<...>"


# --- content parts -------------------------------------------------------------------------------


@attrs.define(eq=False, repr=False)
class TextContent(Record):
    """A text part, of any message."""

    text: str
    """``text``: may be empty."""
    type: Literal["text"] = "text"
    """``type``"""


@attrs.define(eq=False, repr=False)
class ThinkingContent(Record):
    """What a reasoning model thought; assistant messages only."""

    thinking: str
    """``thinking``: may be empty."""
    type: Literal["thinking"] = "thinking"
    """``type``"""


@attrs.define(eq=False, repr=False)
class ImageUrl(Record):
    """Where an image is."""

    url: str
    """``url``: http(s), or a base64 data URI. At most 20 images or 20 MB a request."""
    detail: str | None = None
    """``detail``: ``auto`` (the server's default), ``low`` or ``high``."""


@attrs.define(eq=False, repr=False)
class ImageContent(Record):
    """An image part; user messages only."""

    image_url: ImageUrl
    """``image_url``"""
    type: Literal["image_url"] = "image_url"
    """``type``"""


@attrs.define(eq=False, repr=False)
class Document(Record):
    """Something to cite: in a request's ``documents``, or in a tool's result."""

    data: Mapping[str, Any] | str
    """``data``: string keys, any values; the server takes plain text as well. Under 300 words each
    is recommended."""
    id: str | None = None
    """``id``: what citations will call it; the server makes ``doc:0``, ``doc:1`` where absent."""


@attrs.define(eq=False, repr=False)
class DocumentContent(Record):
    """A document part; tool messages only."""

    document: Document
    """``document``"""
    type: Literal["document"] = "document"
    """``type``"""


# --- tools ---------------------------------------------------------------------------------------


@attrs.define(eq=False, repr=False)
class FunctionSpec(Record):
    """What the model is told of a function."""

    name: str
    """``name``: letters, digits and ``_``, not starting with a digit."""
    parameters: Mapping[str, Any]
    """``parameters``: a JSON Schema of type object."""
    description: str | None = None
    """``description``"""


@attrs.define(eq=False, repr=False)
class Tool(Record):
    """A tool the model may call."""

    function: FunctionSpec
    """``function``"""
    type: Literal["function"] = "function"
    """``type``"""


@attrs.define(eq=False, repr=False)
class ToolCallFunction(Record):
    """Which function, with what."""

    name: str
    """``function.name``"""
    arguments: str
    """``function.arguments``: JSON text as the model wrote it, white space included."""


@attrs.define(eq=False, repr=False)
class ToolCall(Record):
    """A call the model asks for."""

    id: str
    """``id``: ``<tool name>_<12 characters>``; a tool message answers it by this id."""
    function: ToolCallFunction
    """``function``"""
    type: str = "function"
    """``type``"""
    _has_made_up_id: bool = attrs.field(
        default=False, eq=False, repr=False, kw_only=True, alias="has_made_up_id"
    )

    @property
    def has_made_up_id(self) -> bool:
        """Whether the server sent no id, and :attr:`id` is ours: ``call_0``, ``call_1``, ..."""
        return self._has_made_up_id

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.name

    @property
    def arguments(self) -> str:
        """The raw argument text, as the model wrote it; may be empty."""
        return self.function.arguments

    @property
    def parsed(self) -> dict[str, Any]:
        """The arguments as a dict; ``""`` and ``"null"`` are ``{}``.

        Raises:
            ToolArgumentsError: the text is not JSON, or not an object. It has the raw text.
        """
        try:
            value = decode_json(self.arguments) if self.arguments.strip() else None
        except ValueError as error:
            reason = str(error)
        else:
            if value is None:
                return {}
            if is_mapping(value):
                return dict(value)
            reason = f"expected a JSON object, got {type(value).__name__}"
        raise ToolArgumentsError(reason, name=self.name, arguments=self.arguments)

    @property
    def partial(self) -> dict[str, Any]:
        """The arguments as far as they have been received: complete keys, and the text of an
        unfinished string. An unfinished number is not there yet. Equal to :attr:`parsed` when complete.

        Raises:
            ConfigurationError: the package ``jiter`` is missing (``pip install 'streamchat[partial]'``).
            ToolArgumentsError: the text is not the beginning of a JSON object. It has the raw text.
        """
        reason = ""
        try:
            return growing_object(self.arguments, "partial arguments")
        except ConfigurationError:
            raise
        except ValueError as error:
            reason = str(error)
        raise ToolArgumentsError(reason, name=self.name, arguments=self.arguments)


# --- citations -----------------------------------------------------------------------------------


@attrs.define(eq=False, repr=False)
class Source(Record):
    """Where a citation points: a document of the request, or a part of a tool's result."""

    type: str | None = None
    """``sources[].type``: ``document`` or ``tool``; an open string."""
    id: str | None = None
    """``sources[].id``: the document's id, or ``<tool call id>:<n>``."""
    document: dict[str, Any] | None = None
    """``sources[].document``: the document's data and its id, repeated in full."""
    tool_output: dict[str, Any] | None = None
    """``sources[].tool_output``: the result's keys; text results stand under ``content``."""


@attrs.define(eq=False, repr=False)
class Citation(Record):
    """A piece of the answer and what supports it."""

    start: int
    """``start``: first code point cited, counted from the start of the cited block."""
    end: int
    """``end``: one past the last code point cited."""
    text: str
    """``text``: the cited piece itself."""
    sources: list[Source] = attrs.Factory(list[Source])
    """``sources``: usually one."""
    type: str | None = None
    """``type``: ``TEXT_CONTENT``, ``THINKING_CONTENT`` or ``PLAN``; absent in 2024."""
    content_index: int | None = None
    """``content_index``: the cited content block, where the server says so."""


# --- usage and log probabilities -----------------------------------------------------------------


@attrs.define(eq=False, repr=False)
class BilledUnits(Record):
    """What is paid for."""

    input_tokens: float | None = None
    """``billed_units.input_tokens``"""
    output_tokens: float | None = None
    """``billed_units.output_tokens``"""
    search_units: float | None = None
    """``billed_units.search_units``: in the spec, never seen for chat."""
    classifications: float | None = None
    """``billed_units.classifications``: in the spec, never seen for chat."""
    extra: dict[str, Any] = attrs.Factory(dict[str, Any])
    """Whatever else the object held."""


@attrs.define(eq=False, repr=False)
class TokenCounts(Record):
    """What the model saw and made, with Cohere's own parts of the prompt."""

    input_tokens: float | None = None
    """``tokens.input_tokens``"""
    output_tokens: float | None = None
    """``tokens.output_tokens``"""
    image_tokens: float | None = None
    """``tokens.image_tokens``: requests with images; undocumented."""
    reasoning_tokens: float | None = None
    """``tokens.reasoning_tokens``: reasoning models since 2026; undocumented."""
    extra: dict[str, Any] = attrs.Factory(dict[str, Any])
    """Whatever else the object held."""


@attrs.define(eq=False, repr=False)
class Usage(Record):
    """The counts at the end of an answer; all ``None`` after a failure (the wire sends ``{}``)."""

    billed_units: BilledUnits = attrs.Factory(BilledUnits)
    """``usage.billed_units``"""
    tokens: TokenCounts = attrs.Factory(TokenCounts)
    """``usage.tokens``"""
    cached_tokens: float | None = None
    """``usage.cached_tokens``: counts against ``tokens``, may exceed what is billed."""
    extra: dict[str, Any] = attrs.Factory(dict[str, Any])
    """Whatever else the object held, for example ``api_version`` and ``warnings`` in 2024."""


@attrs.define(eq=False, repr=False)
class LogprobItem(Record):
    """Log probabilities of one content delta, with ``logprobs=True``; never seen recorded."""

    token_ids: list[int] = attrs.Factory(list[int])
    """``token_ids``"""
    text: str | None = None
    """``text``: what these tokens say."""
    logprobs: list[float] | None = None
    """``logprobs``: parallel to ``token_ids``."""


# --- messages ------------------------------------------------------------------------------------


@attrs.define(eq=False, repr=False)
class SystemMessage(Record):
    """What the model is told to be; recommended first."""

    content: str | list[TextContent] = attrs.field(repr=_size)
    """``content``"""
    role: Literal["system"] = "system"
    """``role``"""


@attrs.define(eq=False, repr=False)
class UserMessage(Record):
    """What the user says and shows."""

    content: str | list[TextContent | ImageContent] = attrs.field(repr=_size)
    """``content``"""
    role: Literal["user"] = "user"
    """``role``"""


@attrs.define(eq=False, repr=False)
class AssistantMessage(Record):
    """What the model said: the ``message`` of an answer, and a turn of the next request."""

    content: list[TextContent | ThinkingContent] = attrs.Factory(
        list[TextContent | ThinkingContent]
    )
    """``content``: the blocks, in order."""
    tool_plan: str = ""
    """``tool_plan``: what a model without thinking writes before it calls tools."""
    tool_calls: list[ToolCall] = attrs.Factory(list[ToolCall])
    """``tool_calls``"""
    citations: list[Citation] = attrs.Factory(list[Citation])
    """``citations``, in order of arrival."""
    role: Literal["assistant"] = "assistant"
    """``role``"""

    @property
    def text(self) -> str:
        """All text blocks, joined."""
        return "".join(part.text for part in self.content if isinstance(part, TextContent))

    @property
    def thinking(self) -> str:
        """All thinking blocks, joined."""
        return "".join(part.thinking for part in self.content if isinstance(part, ThinkingContent))


@attrs.define(eq=False, repr=False)
class ToolMessage(Record):
    """A tool's answer: one for each call, after the assistant's message that holds the calls."""

    tool_call_id: str
    """``tool_call_id``: the ``id`` of the call that is answered."""
    content: str | list[TextContent | DocumentContent] = attrs.field(repr=_size)
    """``content``: a document without an id is cited as ``<tool_call_id>:<n>``."""
    role: Literal["tool"] = "tool"
    """``role``"""


Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage
"""Any message, as an object; requests take dicts of the same shape as well."""
