"""What Chat v2 *is*, without I/O: bytes to frames to events to answers, and back.

No module here imports asyncio, aiohttp, os, time or random; a test holds it. Use it under any
transport::

    from streamchat.protocol import Accumulator, FrameDecoder, decode_events

    decoder, answer = FrameDecoder(), Accumulator()
    for chunk in chunks:
        for frame in decoder.feed(chunk):
            for event in decode_events(frame):
                event = answer.add(event)
    print(answer.snapshot().text)

The errors that it raises, and their relatives, are here too.
"""

from streamchat.protocol.accumulator import Accumulator
from streamchat.protocol.codec import (
    DONE,
    decode_event,
    decode_events,
    decode_response,
    encode_event,
)
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
from streamchat.protocol.json_lines import LineDecoder
from streamchat.protocol.reader import EventReader
from streamchat.protocol.request import AnyMessage, ChatOptions, ChatRequest, Messages
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.sse import Frame, FrameDecoder, encode_frame

__all__ = [
    "DONE",
    "Accumulator",
    "AnswerTooLargeError",
    "AnyMessage",
    "AuthenticationError",
    "BadRequestError",
    "ChatOptions",
    "ChatRequest",
    "ChatResponse",
    "ConcurrencyError",
    "ConfigurationError",
    "ConnectError",
    "DecodeError",
    "EventReader",
    "Frame",
    "FrameDecoder",
    "FrameTooLargeError",
    "GenerationError",
    "InvalidTokenError",
    "LineDecoder",
    "Messages",
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
    "decode_event",
    "decode_events",
    "decode_response",
    "encode_event",
    "encode_frame",
]
