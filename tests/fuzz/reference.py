"""Bytes to the answer, slowly and obviously: what the library must agree with on every input.

Sources: HTML standard 9.2.5 and 9.2.6 (frames); RFC 8259 and faults.md F72 to F80 (JSON); protocol.md
3.3, 3.4 (events) and 4 (folding). It imports nothing of ``streamchat``: text is decoded before it is
cut into lines where the library cuts bytes, JSON is read by the standard library where the library
uses msgspec, each field is fetched by hand where the library has schemas, and text that is joined is
kept raw and repaired when it is read where the library repairs it piece by piece.

An outcome is a plain dict for an event, and for a failure the name of its class.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any, NamedTuple

LINE_END = re.compile("\r\n|\n|\r")
LINE_END_BYTES = re.compile(b"\r\n|\n|\r")
DIGITS = re.compile("[0-9]+")
PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
HALF = re.compile("[\ud800-\udfff]")
MAX_RETRY_DIGITS = 4000

DECODE_ERROR = "DecodeError"
GENERATION_ERROR = "GenerationError"
TOO_LARGE = "FrameTooLargeError"

Json = dict[str, Any]
Outcome = Json | str


class Frame(NamedTuple):
    """One dispatched event of the standard, its data as text."""

    event: str
    text: str
    id: str
    retry: int | None


class Expected(NamedTuple):
    """What an input says."""

    frames: list[Frame]
    outcomes: list[Outcome]
    answer: Json
    error: tuple[str | None, str | None]
    terminated: bool
    too_large: bool
    last_event_id: str
    is_open: bool
    """Whether the standard leaves it open how the outcomes go on."""


class WrongError(Exception):
    """Not an event, or one that contradicts those before it."""


class FailedError(Exception):
    """The server said that it failed."""


class OpenError(Exception):
    """An event but for a number out of range in a field that nobody reads.

    F75 calls that a failure, protocol.md 3.1 says that unknown fields never fail: both will do, and
    what comes after is not compared.
    """


# --- bytes to frames -----------------------------------------------------------------------------


def read_frames(body: bytes, limit: int | None = None) -> tuple[list[Frame], bool, str]:
    """The frames of a body, whether a block passed the limit after them, and the last event ID."""
    text = body.decode("utf-8", "replace")
    if text.startswith("\ufeff"):
        text = text[1:]
    lines = LINE_END.split(text)
    stop = len(lines) if limit is None else lines_within(body, limit)
    frames: list[Frame] = []
    event, data, last_id, buffered_id = "", "", "", ""
    retry: int | None = None
    for line in lines[: min(stop, len(lines) - 1)]:  # the last one has no end: discarded
        if line == "":
            last_id = buffered_id
            if data != "":
                frames.append(Frame(event or "message", data[:-1], last_id, retry))
            event, data = "", ""
            continue
        if line.startswith(":"):
            continue
        name, _, value = line.partition(":")
        if value.startswith(" "):
            value = value[1:]
        if name == "data":
            data += value + "\n"
        elif name == "event":
            event = value
        elif name == "id":
            if "\0" not in value:
                buffered_id = value
        elif name == "retry" and DIGITS.fullmatch(value):
            digits = value.lstrip("0") or "0"
            if len(digits) <= MAX_RETRY_DIGITS:
                retry = int(digits)
    return frames, stop < len(lines), last_id


def lines_within(body: bytes, limit: int) -> int:
    """How many lines stand before the first block that is larger than the limit.

    A block is counted with LF as line end, without the blank line that ends it. Blank lines before
    it count in pairs as empty blocks; the odd one belongs to it.
    """
    if body.startswith(b"\xef\xbb\xbf"):
        body = body[3:]
    lines = LINE_END_BYTES.split(body)
    start, size, blanks = 0, 0, 0
    for number, line in enumerate(lines[:-1]):
        if line:
            if not size:
                size = blanks % 2
            size += len(line) + 1
        elif size:
            if size - 1 > limit:
                return start
            start, size, blanks = number + 1, 0, 0
        else:
            blanks += 1
    if lines[-1]:
        size = (size or blanks % 2) + len(lines[-1])
    else:
        size -= 1
    return start if size > limit else len(lines)


# --- frames to JSON ------------------------------------------------------------------------------


class Beyond:
    """A number that JSON can say and Python cannot hold."""


BEYOND = Beyond()


def refuse(text: str) -> Any:
    raise ValueError(text)


def whole(text: str) -> Any:
    return BEYOND if len(text) > 4300 else int(text)


def any_float(text: str) -> Any:
    value = float(text)
    return BEYOND if value in (float("inf"), float("-inf")) else value


def finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value


STRICT = json.JSONDecoder(parse_constant=refuse, parse_float=finite)
OPEN = json.JSONDecoder(parse_constant=refuse, parse_float=any_float, parse_int=whole)


MAX_DEPTH = 200


def refuse_depth(text: str) -> None:
    """Arrays and objects inside each other, character by character: 200 and no more."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth, in_string, escaped = 0, False, False
    for character in text:
        if in_string:
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise WrongError
        elif character in "]}":
            depth -= 1


def read_json(text: str) -> Any:
    """Strict JSON: no NaN, nothing out of range, no bottomless nesting."""
    refuse_depth(text)
    try:
        return STRICT.decode(text)
    except ValueError:
        raise WrongError from None


def read_json_openly(text: str) -> Any:
    """The same, but a number out of range becomes ``BEYOND``, which is of no type."""
    refuse_depth(text)
    try:
        return OPEN.decode(text)
    except ValueError:
        raise WrongError from None


def repair(text: str) -> str:
    """Surrogate pairs to their character, a half alone to U+FFFD."""
    if text.isascii():
        return text
    whole = PAIR.sub(
        lambda m: chr(0x10000 + ((ord(m[0][0]) - 0xD800) << 10) + ord(m[0][1]) - 0xDC00), text
    )
    return HALF.sub("\ufffd", whole)


def repair_all(value: Any) -> Any:
    if isinstance(value, str):
        return repair(value)
    if isinstance(value, dict):
        return {repair(key): repair_all(item) for key, item in value.items()}
    if isinstance(value, list):
        return [repair_all(item) for item in value]
    if value is BEYOND:
        raise WrongError
    return value


# --- JSON to events ------------------------------------------------------------------------------

NEEDED = object()


def fetch(item: Json, name: str, default: Any = NEEDED) -> Any:
    """A field; ``null`` is absent."""
    value = item.get(name)
    if value is not None:
        return value
    if default is NEEDED:
        raise WrongError
    return default


def raw_text(item: Json, name: str, default: Any = NEEDED) -> Any:
    value = fetch(item, name, default)
    if value is not default and type(value) is not str:
        raise WrongError
    return value


def text_of(item: Json, name: str, default: Any = NEEDED) -> Any:
    value = raw_text(item, name, default)
    return repair(value) if isinstance(value, str) else value


def integer(value: Any) -> int:
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is not int:
        raise WrongError
    return value


def number(value: Any) -> float:
    if type(value) not in (int, float):
        raise WrongError
    return value  # type: ignore[no-any-return]


def real(value: Any) -> float:
    """A number as the ``float`` that it is nearest to."""
    try:
        return float(number(value))
    except OverflowError:
        raise WrongError from None


def integer_of(item: Json, name: str, default: Any = NEEDED) -> Any:
    value = fetch(item, name, default)
    return value if value is default else integer(value)


def object_of(item: Json, name: str, default: Any = NEEDED) -> Any:
    value = fetch(item, name, default)
    if value is not default and type(value) is not dict:
        raise WrongError
    return value


def is_empty(value: Any) -> bool:
    """Nothing, or an empty text or list, or an object of nulls."""
    if type(value) is dict:
        return all(part is None for part in value.values())
    return not value


def list_of(item: Json, name: str, *, empty_is_empty: bool = False) -> list[Any]:
    """A list; absent is empty. In message-start an empty text, or an object of nulls, is too."""
    value = fetch(item, name, [])
    if empty_is_empty and type(value) in (str, dict) and is_empty(value):
        return []
    if type(value) is not list:
        raise WrongError
    return value


def as_object(value: Any) -> Json:
    if type(value) is not dict:
        raise WrongError
    return value


def call_of(value: Any, *, arguments: Any, joined: bool) -> Json:
    call = as_object(value)
    function = object_of(call, "function")
    fetch_arguments = raw_text if joined else text_of
    return {
        "id": text_of(call, "id"),
        "type": text_of(call, "type", "function"),
        "function": {
            "name": text_of(function, "name"),
            "arguments": fetch_arguments(function, "arguments", arguments),
        },
    }


def citation_of(value: Any, *, empty_is_empty: bool = False) -> Json:
    given = as_object(value)
    citation: Json = {
        "start": integer_of(given, "start"),
        "end": integer_of(given, "end"),
        "text": text_of(given, "text"),
    }
    sources = []
    for part in list_of(given, "sources", empty_is_empty=empty_is_empty):
        source = as_object(part)
        fields = {
            "type": text_of(source, "type", None),
            "id": text_of(source, "id", None),
            "document": repair_all(object_of(source, "document", None)),
            "tool_output": repair_all(object_of(source, "tool_output", None)),
        }
        sources.append({name: item for name, item in fields.items() if item is not None})
    if sources:
        citation["sources"] = sources
    for name, item in (
        ("type", text_of(given, "type", None)),
        ("content_index", integer_of(given, "content_index", None)),
    ):
        if item is not None:
            citation[name] = item
    return citation


def message_of(delta: Json) -> Json:
    """What message-start brings: so far always empty, honoured if it ever is not."""
    message = delta.get("message")
    empty: Json = {"content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    if type(message) is not dict or all(is_empty(message.get(name)) for name in empty):
        return empty
    content = []
    for value in list_of(message, "content", empty_is_empty=True):
        part = as_object(value)
        kind = "thinking" if part.get("type") == "thinking" else "text"
        if fetch(part, "type", "text") != kind:
            raise WrongError
        content.append({"type": kind, kind: text_of(part, kind)})
    if fetch(message, "role", "assistant") != "assistant":
        raise WrongError
    return {
        "content": content,
        "tool_plan": text_of(message, "tool_plan", ""),
        "tool_calls": [
            call_of(call, arguments=NEEDED, joined=False)
            for call in list_of(message, "tool_calls", empty_is_empty=True)
        ],
        "citations": [
            citation_of(citation, empty_is_empty=True)
            for citation in list_of(message, "citations", empty_is_empty=True)
        ],
    }


def logprobs_of(value: Any) -> Json | None:
    if value is None:
        return None
    given = as_object(value)
    item: Json = {}
    ids = fetch(given, "token_ids", [])
    if type(ids) is not list:
        raise WrongError
    if ids:
        item["token_ids"] = [integer(part) for part in ids]
    words = text_of(given, "text", None)
    if words is not None:
        item["text"] = words
    parallel = fetch(given, "logprobs", None)
    if parallel is not None:
        if type(parallel) is not list:
            raise WrongError
        item["logprobs"] = [real(part) for part in parallel]
    return item


def usage_of(given: Json) -> Json:
    """The counts; what is empty is left out, what is unknown is kept."""
    usage: Json = {}
    for group, names in (
        ("billed_units", ("input_tokens", "output_tokens", "search_units", "classifications")),
        ("tokens", ("input_tokens", "output_tokens", "image_tokens", "reasoning_tokens")),
    ):
        counts = dict(object_of(given, group, {}))
        for name in names:
            if counts.get(name) is None:
                counts.pop(name, None)
            else:
                number(counts[name])
        if counts:
            usage[group] = repair_all(counts)
    cached = fetch(given, "cached_tokens", None)
    if cached is not None:
        usage["cached_tokens"] = number(cached)
    for name, item in given.items():
        if name not in ("billed_units", "tokens", "cached_tokens"):
            usage[repair(name)] = repair_all(item)
    return usage


def content_event(name: str, item: Json) -> Json:
    content = object_of(object_of(object_of(item, "delta"), "message"), "content")
    declared = raw_text(content, "type", None)
    text = raw_text(content, "text", None)
    thinking = raw_text(content, "thinking", None)
    event: Json = {"type": name, "index": integer_of(item, "index", 0)}
    if name == "content-delta":
        event["logprobs"] = logprobs_of(item.get("logprobs"))
    kind = declared or ("thinking" if thinking is not None and not text else "text")
    if kind == "text" and not thinking and (text is not None or declared):
        return {**event, "kind": "text", "piece": text or ""}
    if kind == "thinking" and not text:
        return {**event, "kind": "thinking", "piece": thinking or ""}
    given = item["delta"]["message"]["content"]
    if given.get("type") not in (None, "text", "thinking") or set(given) - {
        "type",
        "text",
        "thinking",
    }:
        return {"type": "?", "name": name, "data": repair_all(item)}
    raise WrongError


def read_event(frame: Frame) -> Json | None:
    """The event that a frame says, ``None`` for the terminator."""
    stripped = frame.text.strip(" \t\n\r\x0b\x0c")
    if stripped in ("[DONE]", '"[DONE]"'):
        return None
    if frame.event == "error":
        raise FailedError
    try:
        item = read_json(frame.text)
    except WrongError:
        item = read_json_openly(frame.text)
        with contextlib.suppress(FailedError):
            interpret(item)
        raise OpenError from None
    return interpret(item)


def interpret(item: Any) -> Json:
    """The event that a JSON value is."""
    if type(item) is not dict:
        raise WrongError
    name = item.get("type")
    if name == "error" or (name is None and "message" in item):
        raise FailedError
    if type(name) is not str:
        raise WrongError
    match name:
        case "message-start":
            return {
                "type": name,
                "id": text_of(item, "id", ""),
                "message": message_of(object_of(item, "delta", {})),
            }
        case "content-start" | "content-delta":
            return content_event(name, item)
        case "content-end" | "tool-call-end" | "citation-end":
            return {"type": name, "index": integer_of(item, "index", 0)}
        case "tool-plan-delta":
            plan = raw_text(object_of(object_of(item, "delta"), "message"), "tool_plan")
            return {"type": name, "piece": plan}
        case "tool-call-start":
            message = object_of(object_of(item, "delta"), "message")
            call = call_of(object_of(message, "tool_calls"), arguments="", joined=True)
            return {"type": name, "index": integer_of(item, "index", 0), "tool_call": call}
        case "tool-call-delta":
            message = object_of(object_of(item, "delta"), "message")
            function = object_of(object_of(message, "tool_calls"), "function")
            return {
                "type": name,
                "index": integer_of(item, "index", 0),
                "piece": raw_text(function, "arguments"),
            }
        case "citation-start":
            message = object_of(object_of(item, "delta"), "message")
            citation = citation_of(object_of(message, "citations"))
            return {"type": name, "index": integer_of(item, "index", 0), "citation": citation}
        case "message-end":
            delta = object_of(item, "delta")
            return {
                "type": name,
                "finish_reason": text_of(delta, "finish_reason"),
                "usage": usage_of(object_of(delta, "usage", {})),
                "error": text_of(delta, "error", None),
                "error_type": text_of(delta, "error_type", None),
            }
        case "debug":
            return {"type": name, "prompt": text_of(item, "prompt", None)}
        case _:
            return {"type": "?", "name": repair(name), "data": repair_all(item)}


# --- events to the answer ------------------------------------------------------------------------


class Joined:
    """Text that grows; kept raw, so that two halves of an emoji meet wherever they were cut."""

    def __init__(self, kind: str = "", raw: str = "") -> None:
        self.kind = kind
        self.raw = raw

    def read(self) -> str:
        """What may be shown: all but half an emoji that may still become whole."""
        raw = self.raw
        return repair(raw[:-1] if raw and "\ud800" <= raw[-1] <= "\udbff" else raw)

    def add(self, piece: str) -> str:
        """Append, and return what can be shown now and could not before."""
        before = self.read()
        self.raw += piece
        return self.read()[len(before) :]

    def close(self) -> None:
        """Nothing more is expected: half an emoji stays half."""
        self.raw = repair(self.raw)


class Fold:
    """The table of protocol.md 4."""

    def __init__(self) -> None:
        self.started = False
        self.id = ""
        self.blocks: dict[int, Joined] = {}
        self.plan = Joined()
        self.calls: dict[int, tuple[Json, Joined]] = {}
        self.citations: dict[int, Json] = {}
        self.logprobs: list[Json] = []
        self.end: Json | None = None

    def add(self, event: Json) -> Json:
        """Fold one event; return it with what it ended, its text as it counts."""
        index = event.get("index")
        match event["type"]:
            case "message-start":
                self.start(event)
            case "content-start":
                if index in self.blocks:
                    raise WrongError
                self.blocks[index] = Joined(event["kind"])
                return {**event, "piece": self.blocks[index].add(event["piece"])}
            case "content-delta":
                block = self.blocks.get(index) or Joined(event["kind"])
                if block.kind != event["kind"] and event["piece"]:
                    raise WrongError
                self.blocks[index] = block
                if event["logprobs"] is not None:
                    self.logprobs.append(event["logprobs"])
                return {**event, "piece": block.add(event["piece"])}
            case "content-end":
                block = self.blocks.get(index)
                if block is None:
                    return {**event, "ended": {"type": "text", "text": ""}}
                block.close()
                return {**event, "ended": {"type": block.kind, block.kind: block.read()}}
            case "tool-plan-delta":
                return {**event, "piece": self.plan.add(event["piece"])}
            case "tool-call-start":
                if index in self.calls:
                    raise WrongError
                call = event["tool_call"]
                arguments = Joined()
                shown = arguments.add(call["function"]["arguments"])
                self.calls[index] = (call, arguments)
                return {**event, "tool_call": with_arguments(call, shown)}
            case "tool-call-delta":
                if index not in self.calls:
                    raise WrongError
                return {**event, "piece": self.calls[index][1].add(event["piece"])}
            case "tool-call-end":
                if index not in self.calls:
                    raise WrongError
                call, arguments = self.calls[index]
                arguments.close()
                return {**event, "ended": with_arguments(call, arguments.read())}
            case "citation-start":
                if index in self.citations:
                    raise WrongError
                self.citations[index] = event["citation"]
                return {**event, "block": self.cited(event["citation"])}
            case "citation-end":
                if index not in self.citations:
                    raise WrongError
                citation = self.citations[index]
                return {**event, "ended": citation, "block": self.cited(citation)}
            case "message-end":
                self.end = event
                for joined in (
                    *self.blocks.values(),
                    self.plan,
                    *(c for _, c in self.calls.values()),
                ):
                    joined.close()
                return {**event, "ended": self.answer()}
        return event

    def start(self, event: Json) -> None:
        message = event["message"]
        if self.started:
            raise WrongError
        received = self.blocks or self.plan.raw or self.calls or self.citations
        if received and any(message.values()):
            raise WrongError  # its parts would replace those that were already received
        self.started = True
        self.id = event["id"]
        for index, part in enumerate(message["content"]):
            self.blocks[index] = Joined(part["type"], part[part["type"]])
        self.plan.raw += message["tool_plan"]
        for index, call in enumerate(message["tool_calls"]):
            self.calls[index] = (call, Joined("", call["function"]["arguments"]))
        self.citations.update(enumerate(message["citations"]))

    def cited(self, citation: Json) -> str:
        """The text that the offsets of a citation address."""
        kind = citation.get("type")
        if kind == "PLAN":
            return self.plan.read()
        if citation.get("content_index") in self.blocks:
            return self.blocks[citation["content_index"]].read()
        wanted = "thinking" if kind == "THINKING_CONTENT" else "text"
        opened = [block for block in self.blocks.values() if block.kind == wanted]
        if opened:
            return opened[-1].read()
        return self.plan.read() if kind is None else ""

    def answer(self) -> Json:
        """The unary shape; what is empty is left out."""
        message: Json = {"role": "assistant"}
        if self.blocks:
            message["content"] = [
                {"type": block.kind, block.kind: block.read()}
                for _, block in sorted(self.blocks.items())
            ]
        if self.plan.read():
            message["tool_plan"] = self.plan.read()
        if self.calls:
            message["tool_calls"] = [
                with_arguments(call, arguments.read())
                for _, (call, arguments) in sorted(self.calls.items(), key=lambda item: item[0])
            ]
        if self.citations:
            message["citations"] = list(self.citations.values())
        answer: Json = {"id": self.id} if self.id else {}
        answer["message"] = message
        if self.end is not None:
            answer["finish_reason"] = self.end["finish_reason"]
            answer["usage"] = self.end["usage"]
        if self.logprobs:
            answer["logprobs"] = list(self.logprobs)
        return answer


def with_arguments(call: Json, arguments: str) -> Json:
    return {**call, "function": {**call["function"], "arguments": arguments}}


def expected(body: bytes, limit: int | None = None) -> Expected:
    """What a body says: its frames, its events and failures in order, its answer."""
    frames, too_large, last_event_id = read_frames(body, limit)
    fold = Fold()
    outcomes: list[Outcome] = []
    terminated = is_open = False
    for frame in frames:
        try:
            event = read_event(frame)
            if event is None:
                terminated = True
                break
            outcomes.append(fold.add(event))
        except WrongError:
            outcomes.append(DECODE_ERROR)
        except FailedError:
            outcomes.append(GENERATION_ERROR)
        except OpenError:
            is_open = True
            break
        if fold.end is not None:
            break
    end = fold.end or {}
    error = (end.get("error"), end.get("error_type"))
    return Expected(
        frames, outcomes, fold.answer(), error, terminated, too_large, last_event_id, is_open
    )
