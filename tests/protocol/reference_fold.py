"""The assembled answer folded on plain dicts, for streams as Cohere sends them.

It shares nothing with ``streamchat``: it cuts the stream at blank lines and reads JSON with the
standard library, which is all that a well-formed stream needs.
"""

from __future__ import annotations

import json
from typing import Any


def json_events(stream: bytes) -> list[dict[str, Any]]:
    """The JSON objects of a stream, in order, without the terminator."""
    objects = []
    for block in stream.decode().split("\n\n"):
        for line in block.split("\n"):
            if line.startswith("data: "):
                value = json.loads(line[6:]) if line != "data: [DONE]" else None
                if isinstance(value, dict):
                    objects.append(value)
    return objects


def fold(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The unary shape: ``id, message, finish_reason, usage``, empty containers dropped."""
    identity = ""
    blocks: dict[int, dict[str, Any]] = {}
    plan = ""
    calls: dict[int, dict[str, Any]] = {}
    citations: list[dict[str, Any]] = []
    logprobs: list[dict[str, Any]] = []
    end: dict[str, Any] = {}
    for event in events:
        message = event.get("delta", {}).get("message", {})
        index = event.get("index", 0)
        match event["type"]:
            case "message-start":
                identity = event.get("id", "")
            case "content-start":
                content = message["content"]
                kind = content["type"]
                blocks[index] = {"type": kind, kind: content.get(kind, "")}
            case "content-delta":
                ((kind, piece),) = message["content"].items()
                block = blocks.setdefault(index, {"type": kind, kind: ""})
                block[kind] += piece
                if "logprobs" in event:
                    logprobs.append(event["logprobs"])
            case "tool-plan-delta":
                plan += message["tool_plan"]
            case "tool-call-start":
                call = message["tool_calls"]
                calls[index] = {**call, "function": dict(call["function"])}
            case "tool-call-delta":
                function = message["tool_calls"]["function"]
                calls[index]["function"]["arguments"] += function["arguments"]
            case "citation-start":
                citations.append(
                    {key: value for key, value in message["citations"].items() if value != []}
                )
            case "message-end":
                end = event["delta"]
    body: dict[str, Any] = {"role": "assistant"}
    if blocks:
        body["content"] = [blocks[index] for index in sorted(blocks)]
    if plan:
        body["tool_plan"] = plan
    if calls:
        body["tool_calls"] = [calls[index] for index in sorted(calls)]
    if citations:
        body["citations"] = citations
    answer: dict[str, Any] = {"id": identity} if identity else {}
    answer["message"] = body
    if end:
        answer["finish_reason"] = end["finish_reason"]
        answer["usage"] = end.get("usage", {})
    if logprobs:
        answer["logprobs"] = logprobs
    # Written and read once: two halves of a character that came in two pieces meet.
    whole: dict[str, Any] = json.loads(json.dumps(answer))
    return whole
