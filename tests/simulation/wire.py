"""Random answers as bytes, and what each of their blocks must become: the oracle's own knowledge.

Nothing here is taken from ``streamchat``: a block is written and its meaning is written beside it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from random import Random
from typing import Any

Seen = tuple[Any, ...]
"""An event as plain values: its type, then what it says."""

LIMIT = 4096
"""``max_event_bytes`` of the simulated clients."""


@dataclass(frozen=True, slots=True)
class Item:
    """A block of the wire and its meaning."""

    wire: bytes
    ready: int
    """After how many of its bytes it counts."""
    kind: str
    """``event``, ``bad`` (an error when decoded), ``done``, ``large``, ``comment``."""
    seen: Seen = ()
    event: str = "message"
    data: bytes = b""
    error: str = ""
    """The error's class name, of a ``bad`` one."""


def seen_event(event: Any) -> Seen:
    """What was handed out, as plain values."""
    match event.type:
        case "message-start":
            return (event.type, event.id)
        case "content-start" | "content-delta":
            return (event.type, event.index, event.kind, event.text, event.thinking)
        case "content-end" | "tool-call-end":
            return (event.type, event.index)
        case "tool-plan-delta":
            return (event.type, event.tool_plan)
        case "tool-call-start":
            call = event.tool_call
            return (event.type, event.index, call.id, call.function.name, call.function.arguments)
        case "tool-call-delta":
            return (event.type, event.index, event.arguments)
        case "citation-start" | "citation-end":
            cited = event.citation
            # The end names nothing on the wire: the whole citation is added to it.
            return (event.type, event.index, cited.start, cited.end, cited.text)
        case "message-end":
            return (event.type, event.finish_reason, event.error, event.error_type)
        case "debug":
            return (event.type, event.prompt)
        case _:
            return ("unknown", json.dumps(event.data))


def fold(events: list[Seen]) -> dict[str, Any]:
    """The answer of a prefix of events, on plain values."""
    answer: dict[str, Any] = {"id": "", "content": {}, "plan": "", "calls": {}, "citations": []}
    answer |= {"finish_reason": None, "error": None, "error_type": None}
    for seen in events:
        match seen:
            case ("message-start", identity):
                answer["id"] = identity
            case ("content-start", index, kind, text, thinking):
                answer["content"][index] = [kind, text + thinking]
            case ("content-delta", index, kind, text, thinking):
                answer["content"].setdefault(index, [kind, ""])[1] += text + thinking
            case ("tool-plan-delta", text):
                answer["plan"] += text
            case ("tool-call-start", index, identity, name, arguments):
                answer["calls"][index] = [identity, name, arguments]
            case ("tool-call-delta", index, arguments):
                answer["calls"][index][2] += arguments
            case ("citation-start", _, start, end, text):
                answer["citations"].append([start, end, text])
            case ("message-end", reason, error, error_type):
                answer |= {"finish_reason": reason, "error": error, "error_type": error_type}
    answer["content"] = [answer["content"][index] for index in sorted(answer["content"])]
    answer["calls"] = [answer["calls"][index] for index in sorted(answer["calls"])]
    return answer


def plain_answer(response: Any) -> dict[str, Any]:
    """The library's answer on plain values."""
    message = response.message
    return {
        "id": response.id,
        "content": [[part.type, getattr(part, part.type)] for part in message.content],
        "plan": message.tool_plan,
        "calls": [[c.id, c.function.name, c.function.arguments] for c in message.tool_calls],
        "citations": [[c.start, c.end, c.text] for c in message.citations],
        "finish_reason": response.finish_reason,
        "error": response.error,
        "error_type": response.error_type,
    }


# --- answers -------------------------------------------------------------------------------------

WORDS = (
    "lion",
    " roars",
    " in",
    " Lima",
    "é",
    " \U0001f981",
    "\u2028",
    '"',
    "\\",
    "\n",
    " 7",
    "[DONE]",
)


class Writer:
    """Writes one answer's blocks, spelled as the seed has it."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.end = rng.choice(["\n"] * 4 + ["\r\n", "\r"])
        self.odd = rng.random() < 0.3
        self.named = rng.random() < 0.8
        self.items: list[Item] = []

    def block(self, lines: list[str], kind: str, **facts: Any) -> None:
        wire = "".join(line + self.end for line in [*lines, ""]).encode()
        # A blank line ended by CR LF is a blank line already at its CR.
        ready = len(wire) - (self.end == "\r\n")
        self.items.append(Item(wire, ready, kind, **facts))

    def data(self, payload: str, kind: str, *, name: str = "", **facts: Any) -> None:
        lines = [f"event: {name}"] if name else []
        lines.append(f"data: {payload}" if not (self.odd and self.flip(0.5)) else f"data:{payload}")
        if self.flip(0.03):
            lines.insert(0, "stray line without meaning")
        event = name or "message"
        self.block(lines, kind, event=event, data=payload.encode(), **facts)

    def flip(self, chance: float) -> bool:
        return self.rng.random() < chance

    def event(self, value: dict[str, Any], seen: Seen) -> None:
        if self.flip(0.05):
            self.block([": ping"], "comment")
        spaced = (", ", ": ") if self.odd and self.flip(0.7) else (",", ":")
        if self.odd and self.flip(0.3):
            value = dict(reversed(value.items()))
        ascii_only = self.odd and self.flip(0.5)
        try:
            payload = json.dumps(value, separators=spaced, ensure_ascii=ascii_only)
            payload.encode()
        except UnicodeEncodeError:  # half an emoji can only be written as an escape
            payload = json.dumps(value, separators=spaced)
        self.data(payload, "event", name=value["type"] if self.named else "", seen=seen)

    def words(self) -> str:
        return "".join(self.rng.choice(WORDS) for _ in range(self.rng.randint(0, 3)))

    def pieces(self, count: int) -> list[tuple[str, str]]:
        """Pieces as written and as they must be handed out."""
        found = []
        for _ in range(count):
            if self.flip(0.04):
                found += [("a\ud83e", "a"), ("\udd81b", "\U0001f981b")]
            else:
                piece = self.words()
                found.append((piece, piece))
        return found

    # --- parts ---

    def message(self, name: str, message: dict[str, Any], seen: Seen, index: int | None) -> None:
        value: dict[str, Any] = {"type": name}
        if index is not None:
            value["index"] = index
        self.event(value | {"delta": {"message": message}}, (name, *seen))

    def start(self) -> None:
        identity = f"id-{self.rng.randrange(1000)}"
        message = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": []}
        value = {"id": identity, "type": "message-start", "delta": {"message": message}}
        self.event(value, ("message-start", identity))

    def content(self, index: int, kind: str, *, cited: bool = False) -> None:
        def both(text: str) -> tuple[str, str]:
            return (text, "") if kind == "text" else ("", text)

        first = {"content": {"type": kind, kind: ""}}
        self.message("content-start", first, (index, kind, "", ""), index)
        citations = 0
        for written, told in self.pieces(self.rng.randint(0, 8)):
            self.message(
                "content-delta", {"content": {kind: written}}, (index, kind, *both(told)), index
            )
            if cited and self.flip(0.3) and not written.endswith("\ud83e"):
                self.citation(citations)
                citations += 1
            if self.flip(0.04) and not written.endswith("\ud83e"):
                self.stranger()
        self.event({"type": "content-end", "index": index}, ("content-end", index))

    def citation(self, index: int) -> None:
        where = (self.rng.randrange(9), 9, self.words())
        value = dict(zip(("start", "end", "text"), where, strict=True))
        value["sources"] = [{"type": "document", "id": "d", "document": {"id": "d"}}]
        self.message("citation-start", {"citations": value}, (index, *where), index)
        end = {"type": "citation-end", "index": index}
        self.event(end, ("citation-end", index, *where))

    def stranger(self) -> None:
        if self.flip(0.3):
            self.event({"type": "debug", "prompt": "p"}, ("debug", "p"))
        else:
            value = {"type": "x-new", "n": self.rng.randrange(9)}
            before = self.odd
            self.odd = False
            self.event(value, ("unknown", json.dumps(value)))
            self.odd = before

    def tools(self) -> None:
        for written, told in self.pieces(self.rng.randint(0, 3)):
            self.message("tool-plan-delta", {"tool_plan": written}, (told,), None)
        for index in range(self.rng.randint(1, 3)):
            call = {"id": f"c{index}", "type": "function"}
            call |= {"function": {"name": "f", "arguments": ""}}  # type: ignore[dict-item]
            first = (index, f"c{index}", "f", "")
            self.message("tool-call-start", {"tool_calls": call}, first, index)
            for written, told in self.pieces(self.rng.randint(0, 4)):
                piece = {"tool_calls": {"function": {"arguments": written}}}
                self.message("tool-call-delta", piece, (index, told), index)
            self.event({"type": "tool-call-end", "index": index}, ("tool-call-end", index))

    def finish(self, reason: str, error: str | None = None) -> None:
        delta: dict[str, Any] = {"finish_reason": reason}
        delta["usage"] = {"billed_units": {"input_tokens": 1, "output_tokens": 2}}
        if error is not None:
            delta["error"] = error
        value = {"type": "message-end", "delta": delta}
        self.event(value, ("message-end", reason, error, None))

    def done(self) -> None:
        self.data("[DONE]", "done")

    def bad(self) -> None:
        """A block that fails the stream when it is decoded."""
        what = self.rng.choice(["json", "type", "scalar", "again", "error", "large", "done"])
        match what:
            case "json":
                self.data("{oops", "bad", error="DecodeError")
            case "type":
                self.data("{}", "bad", error="DecodeError")
            case "scalar":
                self.data("7", "bad", error="DecodeError")
            case "again":
                value = '{"type":"tool-call-delta","index":60,"delta":{"message":{"tool_calls":'
                value += '{"function":{"arguments":"x"}}}}}'
                self.data(value, "bad", error="DecodeError")
            case "error":
                self.data('{"message":"no"}', "bad", name="error", error="GenerationError")
            case "large":
                self.block(
                    ['data: "' + "x" * (LIMIT + 200) + '"'], "large", error="FrameTooLargeError"
                )
                # It counts as soon as the limit is passed.
                self.items[-1] = replace(self.items[-1], ready=LIMIT + 1)
            case _:
                self.done()


def write_answer(rng: Random) -> list[Item]:
    """One answer: a flow, its spelling, and perhaps a block that fails it."""
    writer = Writer(rng)
    writer.start()
    flow = rng.choice(["plain", "plain", "cited", "thinking", "tools", "failed", "long"])
    match flow:
        case "plain" | "cited":
            writer.content(0, "text", cited=flow == "cited")
        case "thinking":
            writer.content(0, "thinking")
            writer.content(1, "text")
        case "tools":
            writer.tools()
        case "long":
            for index in range(4):
                writer.content(index, "text")
        case _:
            if rng.random() < 0.5:
                writer.content(0, "text")
    reasons = {"tools": "TOOL_CALL", "failed": rng.choice(["ERROR", "TIMEOUT", "ERROR_LIMIT"])}
    error = "it broke" if flow == "failed" and rng.random() < 0.7 else None
    writer.finish(reasons.get(flow, rng.choice(["COMPLETE", "MAX_TOKENS", "NEW_REASON"])), error)
    if rng.random() < 0.85:
        writer.done()
    if rng.random() < 0.1:
        writer.block([": bye"], "comment")
    items = writer.items
    if rng.random() < 0.15:
        place = rng.randrange(len(items) + 1)
        writer.items = []
        writer.bad()
        items[place:place] = writer.items
    return items
