"""Bytes to the answer, slowly and obviously: what the library must agree with on every input.

Sources: HTML standard 9.2.5 and 9.2.6 (frames of an event stream); jsonlines.org (frames of JSON
lines); RFC 8259 (JSON); the OpenAPI specification of Chat v2, in which nearly every field is optional
(events). It imports nothing of ``streamchat``: text is decoded before it is cut into lines where the
library cuts bytes, JSON is read by the standard library where the library uses msgspec, each field is
fetched by hand where the library has a typed way, and joined text is kept raw and repaired when it is
read where the library repairs it piece by piece.

An outcome is a plain dict for an event, and for a failure the name of its class.
"""

from __future__ import annotations

import json
import re
from typing import Any, Generic, NamedTuple, TypeVar

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
Part = TypeVar("Part")


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
    has_events: bool
    """Whether an event was read, the end of something that never started included."""


class Anything:
    """Equal to every value: what is not compared."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


ANYTHING = Anything()


class WrongError(Exception):
    """Not an event, or one that contradicts those before it."""


class UnknownContentError(Exception):
    """Content of a kind that Chat v2 does not have."""


class FailedError(Exception):
    """The server said that it failed."""


class OpenError(Exception):
    """An event but for a number out of range in a field that nobody reads.

    A number out of range is refused, but a field that nobody reads never fails: both will do, and the
    outcomes after it are not compared.
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

    A block is counted with LF as line end, without the blank line that ends it and without its
    comments, whether they have ended or not. Blank lines before it count in pairs as empty blocks; the
    odd one belongs to it.
    """
    if body.startswith(b"\xef\xbb\xbf"):
        body = body[3:]
    lines = LINE_END_BYTES.split(body)
    start = 0
    block: list[bytes] = []
    for number, line in enumerate(lines[:-1]):
        if line or not block:
            block.append(line)
            continue
        if counted(block) > limit:  # a blank line: the block is complete
            return start
        start, block = number + 1, []
    if lines[-1]:
        block.append(lines[-1])
    return start if counted(block) > limit else len(lines)


def counted(block: list[bytes]) -> int:
    """The bytes of a block that count, an LF between two lines."""
    return len(b"\n".join(line for line in block if not line.startswith(b":")))


def read_lines(body: bytes, limit: int | None = None) -> tuple[list[Frame], bool]:
    """The frames of a body of JSON lines, and whether a line passed the limit after them."""
    if body.startswith(b"\xef\xbb\xbf"):
        body = body[3:]
    *lines, rest = body.split(b"\n")
    frames: list[Frame] = []
    for line in lines:
        if line.endswith(b"\r"):
            line = line[:-1]
        if limit is not None and len(line) > limit:
            return frames, True
        if line.strip():
            frames.append(frame_of_line(line))
    if rest.endswith(b"\r"):
        rest = rest[:-1]
    if limit is not None and len(rest) > limit:
        return frames, True
    try:
        read_json_openly(rest.decode("utf-8", "replace"))
    except WrongError:
        return frames, False  # nothing, or cut off
    return [*frames, frame_of_line(rest)], False


def frame_of_line(line: bytes) -> Frame:
    """A frame that has the name of the object's type, if that is a text which an event line can say."""
    name = None
    try:
        value = read_json_openly(line.decode("utf-8", "replace"))
    except WrongError:
        pass
    else:
        name = value.get("type") if type(value) is dict else None
    if type(name) is not str or "\n" in name or "\r" in name:
        name = ""
    return Frame(repair(name) or "message", line.decode("utf-8", "replace"), "", None)


# --- frames to JSON ------------------------------------------------------------------------------


class Beyond:
    """A number that JSON can say and Python cannot hold."""


BEYOND = Beyond()


def refuse(text: str) -> Any:
    raise ValueError(text)


MAX_DIGITS = 308


def whole(text: str) -> Any:
    return BEYOND if len(text.lstrip("-")) > MAX_DIGITS else int(text)


def any_float(text: str) -> Any:
    value = float(text)
    return BEYOND if value in (float("inf"), float("-inf")) else value


def finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value


def short(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise ValueError(text)
    return int(text)


STRICT = json.JSONDecoder(parse_constant=refuse, parse_float=finite, parse_int=short)
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

KNOWN = (
    "message-start",
    "content-start",
    "content-delta",
    "content-end",
    "tool-plan-delta",
    "tool-call-start",
    "tool-call-delta",
    "tool-call-end",
    "citation-start",
    "citation-end",
    "message-end",
    "debug",
)
LARGEST_INDEX = 100_000
LARGEST_COUNT = 2**53
COUNT = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")
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


def real(value: Any) -> float:
    """A number as the ``float`` that it is nearest to."""
    if type(value) not in (int, float):
        raise WrongError
    try:
        return float(value)
    except OverflowError:
        raise WrongError from None


def integer_of(item: Json, name: str, default: Any = NEEDED) -> Any:
    value = fetch(item, name, default)
    return value if value is default else integer(value)


def index_of(item: Json) -> int | None:
    """The index of an event; it is optional."""
    index: int | None = integer_of(item, "index", None)
    if index is not None and not 0 <= index <= LARGEST_INDEX:
        raise WrongError
    return index


def object_of(item: Json, name: str, default: Any = NEEDED) -> Any:
    value = fetch(item, name, default)
    if value is not default and type(value) is not dict:
        raise WrongError
    return value


def is_empty(value: Any) -> bool:
    """An empty text, or an object of nulls."""
    if type(value) is dict:
        return all(part is None for part in value.values())
    return bool(value == "")


def list_of(item: Json, name: str, *, empty_is_empty: bool = False) -> list[Any]:
    """A list; absent is empty. In message-start an empty text, or an object of nulls, is too."""
    value = fetch(item, name, [])
    if empty_is_empty and is_empty(value):
        return []
    if type(value) is not list:
        raise WrongError
    return value


def several(value: Any) -> list[Any]:
    """One thing, or a list of things, as the list of those that are there."""
    if type(value) is list:
        return [item for item in value if item is not None]
    return [] if value is None else [value]


def as_object(value: Any) -> Json:
    if type(value) is not dict:
        raise WrongError
    return value


def message_in(item: Json) -> Json:
    message: Json = object_of(object_of(item, "delta", {}), "message", {})
    return message


def arguments_of(function: Json) -> str:
    """The arguments of a call as JSON text, also if they are the object itself."""
    value = fetch(function, "arguments", "")
    if type(value) is dict:
        refuse_beyond(value)
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if type(value) is not str:
        raise WrongError
    return value


def refuse_beyond(value: Any) -> None:
    """Raise for a number out of range in what is used as a whole."""
    repair_all(value)


def call_of(value: Any) -> Json:
    """A tool call, its arguments raw; the id is empty if there is none."""
    call = as_object(value)
    function = object_of(call, "function", {})
    return {
        "id": text_of(call, "id", ""),
        "type": text_of(call, "type", "function"),
        "function": {"name": text_of(function, "name", ""), "arguments": arguments_of(function)},
    }


def own_index(call: Json, otherwise: int | None) -> int | None:
    """The index that a call brings along, as OpenAI's calls do."""
    own = call.get("index")
    return own if type(own) is int and 0 <= own <= LARGEST_INDEX else otherwise


def citation_of(value: Any, *, empty_is_empty: bool = False) -> Json:
    given = as_object(value)
    citation: Json = {
        "start": integer_of(given, "start", 0),
        "end": integer_of(given, "end", 0),
        "text": text_of(given, "text", ""),
    }
    given_sources = fetch(given, "sources", [])
    if type(given_sources) is dict:
        given_sources = [given_sources]
    elif type(given_sources) is not list:
        raise WrongError
    sources = []
    for part in given_sources:
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
    if type(message) is not dict or not any(message.get(name) for name in empty):
        return empty
    content = []
    for value in list_of(message, "content", empty_is_empty=True):
        part = as_object(value)
        kind = text_of(part, "type", "") or "text"
        if kind not in ("text", "thinking"):
            raise WrongError
        content.append({"type": kind, kind: text_of(part, kind)})
    if text_of(message, "role", "assistant") != "assistant":
        raise WrongError
    calls = []
    for value in list_of(message, "tool_calls", empty_is_empty=True):
        object_of(as_object(value), "function")
        call = call_of(value)
        calls.append(with_arguments(call, repair(call["function"]["arguments"])))
    return {
        "content": content,
        "tool_plan": text_of(message, "tool_plan", ""),
        "tool_calls": calls,
        "citations": [
            citation_of(citation, empty_is_empty=True)
            for citation in list_of(message, "citations", empty_is_empty=True)
        ],
    }


def logprobs_of(value: Any) -> Json | None:
    if value is None:
        return None
    if type(value) is list and len(value) == 1:
        (value,) = value
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


def usage_of(given: Any) -> Json:
    """The counts that can be read; an unknown key is kept."""
    usage: Json = {}
    if type(given) is not dict:
        return usage
    for group, names in (
        ("billed_units", ("input_tokens", "output_tokens", "search_units", "classifications")),
        ("tokens", ("input_tokens", "output_tokens", "image_tokens", "reasoning_tokens")),
    ):
        counts: Json = {}
        fields = given.get(group)
        for name, value in (fields if type(fields) is dict else {}).items():
            if name not in names:
                counts[repair(name)] = repair_all(value)
            elif count(value) is not None:
                counts[name] = count(value)
        if counts:
            usage[group] = counts
    cached = count(given.get("cached_tokens"))
    if cached is not None:
        usage["cached_tokens"] = cached
    for name, item in given.items():
        if name not in ("billed_units", "tokens", "cached_tokens"):
            usage[repair(name)] = repair_all(item)
    return usage


def count(value: Any) -> float | None:
    """A number of tokens, also as text; what cannot be one is ``None``."""
    refuse_beyond(value)
    if type(value) is str and COUNT.fullmatch(value):
        value = float(value) if "." in value else int(value)
    if type(value) in (int, float) and 0 <= value <= LARGEST_COUNT:
        return value  # type: ignore[no-any-return]
    return None


def piece_of(value: Any) -> tuple[str | None, str]:
    """Kind and text of one piece of content; no kind if it has none and adds nothing."""
    if type(value) is str:
        return "text", value
    given = as_object(value)
    declared = raw_text(given, "type", "")
    text = raw_text(given, "text", None)
    thinking = raw_text(given, "thinking", None)
    if declared not in ("", "text", "thinking"):
        raise UnknownContentError
    if text and thinking:
        raise WrongError
    has_only_known_keys = set(given) <= {"type", "text", "thinking"}
    if (declared == "thinking" and text) or (declared == "text" and thinking):
        raise WrongError if has_only_known_keys else UnknownContentError
    if declared == "thinking" or thinking or (not declared and thinking == "" and not text):
        return "thinking", thinking or ""
    if declared == "text" or text is not None:
        return "text", text or ""
    if has_only_known_keys:
        return None, ""
    raise UnknownContentError


def content_events(name: str, item: Json) -> list[Json]:
    index = index_of(item)
    try:
        pieces = [piece_of(value) for value in several(fetch(message_in(item), "content", None))]
    except UnknownContentError:
        return [{"type": "?", "name": name, "data": repair_all(item)}]
    events: list[Json] = [
        {"type": name, "index": index, "kind": kind, "piece": piece}
        for kind, piece in pieces or [(None, "")]
    ]
    if name == "content-start":
        for event in events[1:]:
            event["index"] = None
    else:
        for event in events:
            event["logprobs"] = None
        events[0]["logprobs"] = logprobs_of(item.get("logprobs"))
    return events


def call_start_events(item: Json) -> list[Json]:
    index = index_of(item)
    events: list[Json] = []
    for value in several(message_in(item).get("tool_calls")):
        call = call_of(value)
        if object_of(value, "function", {}).get("arguments") == {}:
            call = with_arguments(call, "")  # nothing yet: deltas follow, or there are none
        given = message_in(item).get("tool_calls")
        at = own_index(value, None if events else index) if type(given) is list else index
        events.append({"type": "tool-call-start", "index": at, "tool_call": call})
    if not events:
        raise WrongError
    return events


def call_delta_events(item: Json) -> list[Json]:
    index = index_of(item)
    events: list[Json] = []
    for position, value in enumerate(several(message_in(item).get("tool_calls")) or [{}]):
        call = as_object(value)
        piece = arguments_of(object_of(call, "function", {}))
        at = None if index is None else index + position
        if type(message_in(item).get("tool_calls")) is list:
            at = own_index(call, at)
        if (at is not None and at > 100_000) or (at is None and events):
            raise WrongError
        events.append({"type": "tool-call-delta", "index": at, "piece": piece})
    return events


def citation_start_events(item: Json) -> list[Json]:
    index = index_of(item)
    events: list[Json] = []
    for value in several(message_in(item).get("citations")):
        at = None if events else index
        events.append({"type": "citation-start", "index": at, "citation": citation_of(value)})
    if not events:
        raise WrongError
    return events


def end_event(item: Json) -> Json:
    delta = object_of(item, "delta", {})
    error, error_type = delta.get("error"), text_of(delta, "error_type", None)
    if type(error) in (dict, list):
        error = error_type = ANYTHING  # in whatever shape the server words it
    else:
        error = text_of(delta, "error", None)
    return {
        "type": "message-end",
        "finish_reason": text_of(delta, "finish_reason", ""),
        "usage": usage_of(delta.get("usage")),
        "error": error,
        "error_type": error_type,
    }


def read_frame(frame: Frame) -> list[Json] | None:
    """The events that a frame says, ``None`` for the terminator."""
    stripped = frame.text.strip(" \t\n\r\x0b\x0c")
    is_error = frame.event == "error"
    is_foreign = frame.event not in ("message", "error", *KNOWN)
    if stripped == "" and not is_error:
        return []
    if stripped in ("[DONE]", '"[DONE]"') and not is_foreign:
        return None
    if is_error:
        raise FailedError
    try:
        value = read_json(frame.text)
    except WrongError:
        if is_event_but_for_a_number(frame):
            raise OpenError from None
        if is_foreign:
            return [{"type": "?", "name": frame.event, "data": {"data": frame.text}}]
        raise
    item = value if type(value) is dict else {}
    name = item.get("type")
    if type(name) is str:
        if is_typed_failure(item, name):
            raise FailedError
        return interpret(item, name)
    if is_failure(item, is_foreign=is_foreign):
        raise FailedError
    if is_foreign:
        data = repair_all(value if type(value) is dict else {"data": value})
        return [{"type": "?", "name": frame.event, "data": data}]
    raise WrongError


def is_event_but_for_a_number(frame: Frame) -> bool:
    """Whether it would be an event of Chat v2 if a number that it does not use were in range."""
    try:
        item = read_json_openly(frame.text)
        if type(item) is not dict or item.get("type") not in KNOWN:
            return False
        interpret(item, item["type"])
    except WrongError:
        return False
    return True


def is_typed_failure(item: Json, name: str) -> bool:
    """Whether an object with a type is an error."""
    if name in KNOWN:
        return False
    if name == "error" or item.get("object") == "error":
        return True
    words = item.get("message") or item.get("error") or item.get("detail")
    return name.lower().endswith("error") and bool(words)


def is_failure(item: Json, *, is_foreign: bool) -> bool:
    """Whether an object without a type is an error."""
    error, message, detail = item.get("error"), item.get("message"), item.get("detail")
    if type(error) is dict or (type(error) is str and error != "") or item.get("errors"):
        return True
    if is_foreign:
        return False  # a keep-alive may have a message
    has_message = message is not None and type(message) not in (dict, list)
    has_detail = detail is not None and type(detail) is not dict
    return has_message or has_detail


def interpret(item: Json, name: str) -> list[Json]:
    """The events that a JSON object with this type is."""
    match name:
        case "message-start":
            message = message_of(object_of(item, "delta", {}))
            return [{"type": name, "id": text_of(item, "id", ""), "message": message}]
        case "content-start" | "content-delta":
            return content_events(name, item)
        case "content-end" | "tool-call-end" | "citation-end":
            return [{"type": name, "index": index_of(item)}]
        case "tool-plan-delta":
            return [{"type": name, "piece": raw_text(message_in(item), "tool_plan", "")}]
        case "tool-call-start":
            return call_start_events(item)
        case "tool-call-delta":
            return call_delta_events(item)
        case "citation-start":
            return citation_start_events(item)
        case "message-end":
            return [end_event(item)]
        case "debug":
            return [{"type": name, "prompt": text_of(item, "prompt", None)}]
        case _:
            return [{"type": "?", "name": repair(name), "data": repair_all(item)}]


# --- events to the answer ------------------------------------------------------------------------


class Joined:
    """Text that grows; kept raw, so that two halves of an emoji meet wherever they were cut."""

    def __init__(self, raw: str = "") -> None:
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


class Block(Joined):
    """A content block."""

    def __init__(self, kind: str | None, raw: str = "", *, by_delta: bool = False) -> None:
        super().__init__(raw)
        self.kind = kind or "text"
        self.is_open = kind is None
        """Whether the first piece is still to say the kind."""
        self.by_delta = by_delta
        """Whether no start began it."""
        self.has_ended = False

    def part(self) -> Json:
        return {"type": self.kind, self.kind: self.read()}


class Call(Joined):
    """A tool call."""

    def __init__(self, call: Json, raw: str = "") -> None:
        super().__init__(raw)
        self.call = call
        self.has_ended = False

    def whole(self) -> Json:
        return with_arguments(self.call, self.read())


def with_arguments(call: Json, arguments: str) -> Json:
    return {**call, "function": {**call["function"], "arguments": arguments}}


class Space(Generic[Part]):
    """The blocks, the calls, or the citations: parts by place, and the places by index on the wire."""

    def __init__(self) -> None:
        self.parts: dict[int, Part] = {}
        self.by_index: dict[int, int] = {}
        self.without_index: set[int] = set()
        self.last: int | None = None

    def start(self, index: int | None, part: Part) -> int:
        """The place of a new part: its index if that is free, else the one after the highest."""
        place = index
        if place is None or place in self.parts:
            place = max(self.parts, default=-1) + 1
        if index is None:
            self.without_index.add(place)
        else:
            self.by_index[index] = place
        self.parts[place] = part
        self.last = place
        return place

    def find(self, index: int | None) -> int | None:
        """The place of the part that an event with this index, or with none, belongs to."""
        if index is None:
            return self.last
        if index in self.by_index:
            return self.by_index[index]
        return index if index in self.without_index else None


class Fold:
    """The answer so far."""

    def __init__(self) -> None:
        self.started = False
        self.id = ""
        self.blocks: Space[Block] = Space()
        self.plan = Joined()
        self.calls: Space[Call] = Space()
        self.last_number = -1
        self.citations: Space[Json] = Space()
        self.open_citation: int | None = None
        self.logprobs: list[Json] = []
        self.end: Json | None = None

    def add(self, event: Json) -> Json | None:
        """Fold one event; return it with what it ended, its text as it counts, its place as index.

        ``None`` for the end of something that never started.
        """
        match event["type"]:
            case "message-start":
                self.start(event)
            case "content-start":
                return self.start_block(event)
            case "content-delta":
                return self.add_to_block(event)
            case "content-end":
                place = self.blocks.find(event["index"])
                if place is None:
                    return shown(event, event["index"], ended={"type": "text", "text": ""})
                block = self.blocks.parts[place]
                block.has_ended = True
                block.close()
                return shown(event, place, ended=block.part())
            case "tool-plan-delta":
                return {**event, "piece": self.plan.add(event["piece"])}
            case "tool-call-start":
                return self.start_call(event)
            case "tool-call-delta":
                place = self.calls.find(event["index"])
                if place is not None:
                    return shown(event, place, piece=self.calls.parts[place].add(event["piece"]))
                if event["piece"]:
                    raise WrongError
                return shown(event, event["index"])
            case "tool-call-end":
                place = self.calls.find(event["index"])
                if place is None:
                    return None
                call = self.calls.parts[place]
                call.has_ended = True
                call.close()
                return shown(event, place, ended=call.whole())
            case "citation-start":
                index, citation = event["index"], event["citation"]
                if index is not None and index == self.open_citation:
                    raise WrongError
                self.open_citation = index
                place = self.citations.start(index, citation)
                return shown(event, place, block=self.cited(citation))
            case "citation-end":
                self.open_citation = None
                place = self.citations.find(event["index"])
                if place is None:
                    return None
                citation = self.citations.parts[place]
                return shown(event, place, ended=citation, block=self.cited(citation))
            case "message-end":
                self.end = event
                growing: list[Joined] = [*self.blocks.parts.values(), *self.calls.parts.values()]
                for joined in (*growing, self.plan):
                    joined.close()
                return {**event, "ended": self.answer()}
        return event

    def start(self, event: Json) -> None:
        message = event["message"]
        is_empty = not any(message.values())
        received = self.blocks.parts or self.plan.raw or self.calls.parts or self.citations.parts
        if received and not is_empty:
            raise WrongError  # its parts would take the places of those that are there
        if self.started and (received or not is_empty or event["id"] != self.id):
            raise WrongError
        self.started = True
        self.id = event["id"]
        for part in message["content"]:
            self.blocks.start(None, Block(part["type"], part[part["type"]]))
        self.plan.raw += message["tool_plan"]
        for call in message["tool_calls"]:
            self.calls.start(None, Call(self.identified(call), call["function"]["arguments"]))
        for citation in message["citations"]:
            self.citations.start(None, citation)

    def start_block(self, event: Json) -> Json:
        index = event["index"]
        named = None if index is None else self.blocks.find(index)
        if named is not None and not self.blocks.parts[named].has_ended:
            raise WrongError
        block = Block(event["kind"])
        piece = block.add(event["piece"])
        place = self.blocks.start(index, block)
        return shown(event, place, kind=block.kind, is_open=block.is_open, piece=piece)

    def add_to_block(self, event: Json) -> Json:
        index, kind, piece = event["index"], event["kind"] or "text", event["piece"]
        place = self.blocks.find(index)
        if piece:
            place = self.place_for(index, place, kind)
        if event["logprobs"] is not None:
            self.logprobs.append(event["logprobs"])
        if place is None:
            return shown(event, index, kind=kind)
        return shown(event, place, kind=kind, piece=self.blocks.parts[place].add(piece))

    def place_for(self, index: int | None, place: int | None, kind: str) -> int:
        """Where a piece that is not empty goes: its block, or a new one."""
        if place is None:
            return self.blocks.start(index, Block(kind, by_delta=True))
        block = self.blocks.parts[place]
        if block.is_open:
            block.kind, block.is_open = kind, False
            # Of its kind it is the last from here on, which is what citations go by.
            self.blocks.parts[place] = self.blocks.parts.pop(place)
        if block.kind == kind:
            return place
        if index is None and block.by_delta:
            return self.blocks.start(None, Block(kind, by_delta=True))
        raise WrongError

    def start_call(self, event: Json) -> Json:
        index, given = event["index"], event["tool_call"]
        named = None if index is None else self.calls.find(index)
        if named is not None:
            earlier = self.calls.parts[named]
            if not earlier.has_ended and given["id"] in ("", earlier.call["id"]):
                raise WrongError
        call = Call(self.identified(given))
        piece = call.add(given["function"]["arguments"])
        place = self.calls.start(index, call)
        return shown(event, place, tool_call=with_arguments(call.call, piece))

    def identified(self, call: Json) -> Json:
        """A call that has an id, made up if it came without."""
        if call["id"]:
            return call
        used = {other.call["id"] for other in self.calls.parts.values()}
        number = max(len(self.calls.parts), self.last_number + 1)
        while f"call_{number}" in used:
            number += 1
        self.last_number = number
        return {**call, "id": f"call_{number}"}

    def cited(self, citation: Json) -> str:
        """The text that the offsets of a citation address."""
        kind = citation.get("type")
        if kind == "PLAN":
            return self.plan.read()
        blocks = self.blocks.parts
        if citation.get("content_index") in blocks:
            return blocks[citation["content_index"]].read()
        wanted = "thinking" if kind == "THINKING_CONTENT" else "text"
        opened = [b for b in blocks.values() if b.kind == wanted and not b.is_open]
        if opened:
            return opened[-1].read()
        return self.plan.read() if kind is None else ""

    def answer(self) -> Json:
        """The unary shape; what is empty is left out."""
        message: Json = {"role": "assistant"}
        if self.blocks.parts:
            message["content"] = [block.part() for _, block in by_place(self.blocks)]
        if self.plan.read():
            message["tool_plan"] = self.plan.read()
        if self.calls.parts:
            message["tool_calls"] = [call.whole() for _, call in by_place(self.calls)]
        if self.citations.parts:
            message["citations"] = list(self.citations.parts.values())
        answer: Json = {"id": self.id} if self.id else {}
        answer["message"] = message
        if self.end is not None:
            answer["finish_reason"] = self.end["finish_reason"]
            answer["usage"] = self.end["usage"]
        if self.logprobs:
            answer["logprobs"] = list(self.logprobs)
        return answer


def by_place(space: Space[Part]) -> list[tuple[int, Part]]:
    return sorted(space.parts.items(), key=lambda item: item[0])


def shown(event: Json, place: int | None, **added: Any) -> Json:
    """An event as it is delivered: its place as index, 0 if it has neither place nor index."""
    return {**event, "index": place or 0, **added}


def expected(body: bytes, limit: int | None = None, *, lines: bool = False) -> Expected:
    """What a body says: its frames, its events and failures in order, its answer."""
    last_event_id = ""
    if lines:
        frames, too_large = read_lines(body, limit)
    else:
        frames, too_large, last_event_id = read_frames(body, limit)
    fold = Fold()
    outcomes: list[Outcome] = []
    terminated = is_open = has_events = False
    for frame in frames:
        try:
            events = read_frame(frame)
        except WrongError:
            outcomes.append(DECODE_ERROR)
            continue
        except FailedError:
            outcomes.append(GENERATION_ERROR)
            continue
        except OpenError:
            is_open = True
            break
        if events is None:
            terminated = True
            break
        for event in events:
            try:
                outcome = fold.add(event)
            except WrongError:
                outcomes.append(DECODE_ERROR)
                continue
            has_events = True
            if outcome is not None:
                outcomes.append(outcome)
        if fold.end is not None:
            break
    end = fold.end or {}
    return Expected(
        frames,
        outcomes,
        fold.answer(),
        (end.get("error"), end.get("error_type")),
        terminated,
        too_large,
        last_event_id,
        is_open,
        has_events,
    )
