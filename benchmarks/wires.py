"""The same text as three vendors send it: the frames of one answer on each one's wire.

Shapes as documented by each vendor for text: https://docs.cohere.com/v2/docs/streaming,
https://platform.openai.com/docs/api-reference/chat-streaming,
https://docs.anthropic.com/en/docs/build-with-claude/streaming.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.harness import answer

WORDS = ("The", " model", " reads", " tokens", ",", " one", " after", " another", ".", "\n")


def text(events: int) -> list[str]:
    """The text deltas of an answer: the same for each vendor."""
    return [WORDS[i % len(WORDS)] for i in range(events)]


def _json(body: object) -> str:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False)


def cohere(texts: Sequence[str]) -> list[bytes]:
    """Cohere's Chat v2: as ``harness.answer`` has it."""
    start, content_start, *rest = answer(0)
    before, after = answer(1)[2].split(b'"The"')
    return [start, content_start, *(before + _json(x).encode() + after for x in texts), *rest]


def openai(texts: Sequence[str]) -> list[bytes]:
    """OpenAI's Chat Completions."""

    def frame(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
        body = {
            "id": "chatcmpl-BdVwq5Uo3v1cKqLZcq0dVfKXbT3nQ",
            "object": "chat.completion.chunk",
            "created": 1749000000,
            "model": "m",
            "service_tier": "default",
            "system_fingerprint": "fp_07871e2ad8",
            "choices": choices,
            "usage": usage,
        }
        return f"data: {_json(body)}\n\n".encode()

    def choice(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}

    return [
        frame([choice({"role": "assistant", "content": "", "refusal": None})]),
        *(frame([choice({"content": x})]) for x in texts),
        frame([choice({}, "stop")]),
        frame([], {"prompt_tokens": 5, "completion_tokens": 77, "total_tokens": 82}),
        b"data: [DONE]\n\n",
    ]


def anthropic(texts: Sequence[str]) -> list[bytes]:
    """Anthropic's Messages."""

    def frame(kind: str, **fields: object) -> bytes:
        return f"event: {kind}\ndata: {_json({'type': kind, **fields})}\n\n".encode()

    message = {
        "id": "msg_1nZdL29xx5MUA1yADyHTEsnR8uuvGzszyY",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "m",
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 1},
    }
    return [
        frame("message_start", message=message),
        frame("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        frame("ping"),
        *(
            frame("content_block_delta", index=0, delta={"type": "text_delta", "text": x})
            for x in texts
        ),
        frame("content_block_stop", index=0),
        frame(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"output_tokens": 77},
        ),
        frame("message_stop"),
    ]


WIRES: Mapping[str, Callable[[Sequence[str]], list[bytes]]] = {
    "cohere": cohere,
    "openai": openai,
    "anthropic": anthropic,
}
