"""Events folded into the unary JSON answer; imports ``streamchat.protocol`` only.

Not the accumulator of ``streamchat.protocol``: this is the server's side, and a server that used
the client's own folding could not be used to test it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from streamchat.protocol.events import (
    CitationStart,
    ContentDelta,
    ContentStart,
    Event,
    MessageEnd,
    MessageStart,
    ToolCallDelta,
    ToolCallStart,
    ToolPlanDelta,
)
from streamchat.protocol.plain import decode_json, to_plain

__all__ = ["fold"]


def fold(events: Iterable[Event]) -> dict[str, Any]:
    """The answer as plain data: ``id``, ``message``, ``finish_reason``, ``usage``, ``logprobs``.

    What is empty is left out. Arguments are compact with sorted keys, and the text ``null`` where
    the stream had none, which is how the real unary answer differs from its stream.
    """
    answer: dict[str, Any] = {"id": ""}
    blocks: list[tuple[str, list[str]]] = []
    calls: list[tuple[ToolCallStart, list[str]]] = []
    plan: list[str] = []
    citations: list[Any] = []
    logprobs: list[Any] = []
    end = MessageEnd("COMPLETE")
    for event in events:
        match event:
            case MessageStart():
                answer["id"] = event.id
            case ContentStart():
                blocks.append((event.kind, []))
            case ContentDelta():
                blocks[-1][1].append(event.text + event.thinking)
                if event.logprobs is not None:
                    logprobs.append(event.logprobs)
            case ToolPlanDelta():
                plan.append(event.tool_plan)
            case ToolCallStart():
                calls.append((event, []))
            case ToolCallDelta():
                calls[-1][1].append(event.arguments)
            case CitationStart():
                citations.append(event.citation)
            case MessageEnd():
                end = event
            case _:
                pass
    message = {
        "role": "assistant",
        "content": [{"type": kind, kind: "".join(pieces)} for kind, pieces in blocks],
        "tool_plan": "".join(plan),
        "tool_calls": [_call(start, "".join(pieces)) for start, pieces in calls],
        "citations": citations,
    }
    answer["message"] = {name: value for name, value in message.items() if value}
    answer |= {"finish_reason": end.finish_reason, "usage": end.usage}
    if logprobs:
        answer["logprobs"] = logprobs
    plain: dict[str, Any] = to_plain(answer)
    return plain


def _call(start: ToolCallStart, arguments: str) -> dict[str, Any]:
    call = start.tool_call
    function = {"name": call.name, "arguments": _compact(arguments)}
    return {"id": call.id, "type": call.type, "function": function}


def _compact(arguments: str) -> str:
    if not arguments:
        return "null"
    try:
        value = decode_json(arguments)
    except ValueError:  # cut off by max_tokens
        return arguments
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
