"""streamchat: an asyncio streaming client for Cohere's Chat v2 API.

Every public name, grouped by the module that owns it; everything else may move. The rooms for several
streams (fan-out, tools, parsed answers, conversations) are imported when one of their names is used: a
service that relays streams starts without them (benchmarks/imports.py).
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from streamchat._version import __version__ as __version__
from streamchat.client import Client
from streamchat.context import Context
from streamchat.dispatcher import Dispatcher, Handler
from streamchat.middleware import Send
from streamchat.policy import Retry, Timeout
from streamchat.protocol.errors import (
    AnswerTooLargeError,
    AuthenticationError,
    BadRequestError,
    ConcurrencyError,
    ConfigurationError,
    ConnectError,
    DecodeError,
    FrameTooLargeError,
    GenerationError,
    InvalidTokenError,
    NotFoundError,
    PaymentRequiredError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    RequestCancelledError,
    ServerError,
    StatusError,
    StopReachedError,
    StreamChatError,
    StreamTimeoutError,
    StructureError,
    ToolArgumentsError,
    ToolError,
    ToolLoopLimitError,
    ToolRefusedError,
    TransportError,
    TruncatedStreamError,
    UnexpectedContentTypeError,
    UnprocessableEntityError,
)
from streamchat.protocol.events import (
    CitationEnd,
    CitationStart,
    ContentDelta,
    ContentEnd,
    ContentStart,
    Debug,
    Event,
    MessageEnd,
    MessageStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolPlanDelta,
    UnknownEvent,
)
from streamchat.protocol.messages import (
    AssistantMessage,
    BilledUnits,
    Citation,
    Document,
    DocumentContent,
    FunctionSpec,
    ImageContent,
    ImageUrl,
    LogprobItem,
    Message,
    Source,
    SystemMessage,
    TextContent,
    ThinkingContent,
    TokenCounts,
    Tool,
    ToolCall,
    ToolCallFunction,
    ToolMessage,
    Usage,
    UserMessage,
)
from streamchat.protocol.request import (
    AnyMessage,
    ChatOptions,
    ChatRequest,
    CommonOptions,
    Messages,
)
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.spans import CitedKind, CitedSpan
from streamchat.protocol.sse import Frame
from streamchat.steps import StepEnd, StepEvent, StepStart, ToolProgress, ToolResult
from streamchat.stream import ChatStream
from streamchat.timing import Timing

if _TYPE_CHECKING:
    from streamchat.conversation import Conversation, TrimRule, last_tokens, last_turns
    from streamchat.fanout import FanOut, FanOutResult
    from streamchat.limiter import Limiter
    from streamchat.stops import Stop
    from streamchat.structured import ParsedAnswer
    from streamchat.toolrun import ToolRun
    from streamchat.tools import FunctionTool, tool

__all__ = [
    # client
    "Client",
    # context
    "Context",
    # conversation
    "Conversation",
    "TrimRule",
    "last_tokens",
    "last_turns",
    # dispatcher
    "Dispatcher",
    "Handler",
    # fanout
    "FanOut",
    "FanOutResult",
    # limiter
    "Limiter",
    # middleware
    "Send",
    # policy
    "Retry",
    "Timeout",
    # protocol.errors
    "AnswerTooLargeError",
    "AuthenticationError",
    "BadRequestError",
    "ConcurrencyError",
    "ConfigurationError",
    "ConnectError",
    "DecodeError",
    "FrameTooLargeError",
    "GenerationError",
    "InvalidTokenError",
    "NotFoundError",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "ProtocolError",
    "RateLimitError",
    "RequestCancelledError",
    "ServerError",
    "StatusError",
    "StopReachedError",
    "StreamChatError",
    "StreamTimeoutError",
    "StructureError",
    "ToolArgumentsError",
    "ToolError",
    "ToolLoopLimitError",
    "ToolRefusedError",
    "TransportError",
    "TruncatedStreamError",
    "UnexpectedContentTypeError",
    "UnprocessableEntityError",
    # protocol.events
    "CitationEnd",
    "CitationStart",
    "ContentDelta",
    "ContentEnd",
    "ContentStart",
    "Debug",
    "Event",
    "MessageEnd",
    "MessageStart",
    "ToolCallDelta",
    "ToolCallEnd",
    "ToolCallStart",
    "ToolPlanDelta",
    "UnknownEvent",
    # protocol.messages
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
    # protocol.request
    "AnyMessage",
    "ChatOptions",
    "ChatRequest",
    "CommonOptions",
    "Messages",
    # protocol.response
    "ChatResponse",
    # protocol.spans
    "CitedKind",
    "CitedSpan",
    # protocol.sse
    "Frame",
    # steps
    "StepEnd",
    "StepEvent",
    "StepStart",
    "ToolProgress",
    "ToolResult",
    # stops
    "Stop",
    # stream
    "ChatStream",
    # structured
    "ParsedAnswer",
    # timing
    "Timing",
    # toolrun
    "ToolRun",
    # tools
    "FunctionTool",
    "tool",
]

_LATER = {
    "Conversation": "conversation",
    "FanOut": "fanout",
    "FanOutResult": "fanout",
    "FunctionTool": "tools",
    "Limiter": "limiter",
    "ParsedAnswer": "structured",
    "Stop": "stops",
    "ToolRun": "toolrun",
    "TrimRule": "conversation",
    "last_tokens": "conversation",
    "last_turns": "conversation",
    "tool": "tools",
}
"""Names to the rooms that are imported for them."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(f"{__name__}.{_LATER[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
