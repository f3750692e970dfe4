"""Inputs from a seed, fast: answers of every flow, bent and broken in every way we could think of.

``make(random)`` gives one :class:`Input`: the bytes, where they are cut into chunks, and the limit of
one block. The same seed gives the same inputs. Most are small (some hundred bytes), because a few
events are enough to contradict each other; one in some thousands is large.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

Json = dict[str, Any]


class Input(NamedTuple):
    """One run of the comparison."""

    body: bytes
    cuts: tuple[int, ...]
    """Where the chunks end, ascending; the last chunk goes to the end."""
    limit: int | None
    """The largest block or line, ``None`` for the library's own 16 MiB."""
    lines: bool = False
    """Whether the body is JSON lines and not an event stream."""

    def chunks(self) -> Iterator[bytes]:
        start = 0
        for stop in self.cuts:
            yield self.body[start:stop]
            start = stop
        yield self.body[start:]


# --- events --------------------------------------------------------------------------------------


def content(name: str, index: int, **fields: Any) -> Json:
    return {"type": name, "index": index, "delta": {"message": {"content": fields}}}


def text(piece: str, index: int = 0) -> Json:
    return content("content-delta", index, text=piece)


def thinking(piece: str, index: int = 0) -> Json:
    return content("content-delta", index, thinking=piece)


def plan(piece: str) -> Json:
    return {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": piece}}}


def call(index: int, name: str = "f", arguments: str = "") -> Json:
    function = {"name": name, "arguments": arguments}
    fields = {"id": f"{name}_{index}", "type": "function", "function": function}
    return {"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": fields}}}


def arguments(piece: str, index: int = 0) -> Json:
    fields = {"function": {"arguments": piece}}
    return {"type": "tool-call-delta", "index": index, "delta": {"message": {"tool_calls": fields}}}


def citation(index: int, start: int, end: int, words: str, **fields: Any) -> Json:
    cited = {"start": start, "end": end, "text": words, **fields}
    return {"type": "citation-start", "index": index, "delta": {"message": {"citations": cited}}}


def stop(name: str, index: int) -> Json:
    return {"type": name, "index": index}


def finish(reason: str = "COMPLETE", **fields: Any) -> Json:
    usage = {
        "billed_units": {"input_tokens": 2, "output_tokens": 5},
        "tokens": {"input_tokens": 60, "output_tokens": 5, "reasoning_tokens": 1},
        "cached_tokens": 16,
    }
    return {"type": "message-end", "delta": {"finish_reason": reason, "usage": usage, **fields}}


EMPTY = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
START: Json = {"id": "c1c1", "type": "message-start", "delta": {"message": EMPTY}}
DOCUMENT = {"type": "document", "id": "doc:0", "document": {"id": "doc:0", "n": None, "x": 1.0}}
RESULT = {
    "type": "tool",
    "id": "f_0:0",
    "tool_output": {"content": "-3", "deep": [{"a": [1, None]}]},
}
FILLED = {
    "role": "assistant",
    "content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "x"}],
    "tool_plan": "p",
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "n", "arguments": "{}"}}],
    "citations": [{"start": 0, "end": 1, "text": "x", "sources": [DOCUMENT]}],
}
LOGPROBS = {"text": "Hi", "token_ids": [12, 3], "logprobs": [-0.5, -1]}


def listed(name: str, index: int, field: str, *items: Any) -> Json:
    return {"type": name, "index": index, "delta": {"message": {field: list(items)}}}


def one_call(identity: str, name: str, given: Any) -> Json:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": given}}


def piece_of_call(given: Any) -> Json:
    return {"function": {"arguments": given}}


def without_index(event: Json) -> Json:
    return {name: value for name, value in event.items() if name != "index"}


FLOWS: list[list[Json]] = [
    [
        START,
        content("content-start", 0, type="text", text=""),
        *map(text, ("The", " harbour", "\n", 'at "six" \\o/', " 東 🚢")),
        stop("content-end", 0),
        finish(),
    ],
    [
        START,
        content("content-start", 0, type="text", text=""),
        text("Dock"),
        text(" nine"),
        citation(0, 0, 9, "Dock nine", sources=[DOCUMENT], type="TEXT_CONTENT"),
        stop("citation-end", 0),
        text(" é"),
        citation(1, 5, 9, "nine", sources=[DOCUMENT, RESULT]),
        stop("citation-end", 1),
        stop("content-end", 0),
        finish("MAX_TOKENS"),
    ],
    [
        START,
        plan("I will"),
        plan(" look"),
        citation(0, 0, 6, "I will", sources=[RESULT], type="PLAN"),
        stop("citation-end", 0),
        call(0),
        *map(arguments, ('{"', "a", '":', "1}")),
        stop("tool-call-end", 0),
        call(1, "g"),
        stop("tool-call-end", 1),
        finish("TOOL_CALL"),
    ],
    [
        START,
        content("content-start", 0, type="thinking", thinking=""),
        *map(thinking, ("The", " user", "")),
        citation(0, 0, 3, "The", type="THINKING_CONTENT", content_index=0),
        stop("content-end", 0),
        content("content-start", 1, type="text", text=""),
        text("Hi", 1),
        citation(1, 0, 2, "Hi", sources=[], type="TEXT_CONTENT", content_index=1),
        stop("citation-end", 1),
        stop("content-end", 1),
        finish(),
    ],
    [
        START,
        content("content-start", 0, type="text", text=""),
        text("\ud83d"),
        text("\ude00 a"),
        text("b\ud83d"),
        {**text("\ude80"), "logprobs": LOGPROBS},
        {"type": "debug", "prompt": "<full>"},
        stop("content-end", 0),
        finish(),
    ],
    [START, plan("I"), {**finish("ERROR", error="no", error_type="T"), "id": "x"}],
    [{"type": "message-start", "id": "m", "delta": {"message": FILLED}}, text("y", 1), finish()],
    [call(0), arguments("{\ud83d"), arguments("\ude00}"), stop("tool-call-end", 0), plan("\ud83d")],
    [
        {"type": "future", "n": [1, None, 2.0], "\ud83d": "\ude00"},
        content("content-start", 0, type="image", url="u"),
        {"message": "boom", "error_type": "T"},
        {"type": "error", "error": {"message": "no"}},
    ],
    [
        START,
        listed("tool-call-start", 0, "tool_calls", one_call("a", "f", ""), one_call("b", "g", {})),
        listed("tool-call-delta", 0, "tool_calls", piece_of_call("{"), piece_of_call({"a": [1.0]})),
        listed("tool-call-delta", 0, "tool_calls", piece_of_call("}") | {"index": 1}),
        stop("tool-call-end", 1),
        stop("tool-call-end", 7),
        listed("content-start", 0, "content", {"type": "thinking"}, None, {"type": "text"}),
        listed("content-delta", 0, "content", {"thinking": "t"}, {"thinking": "u"}),
        listed("content-delta", 1, "content", "bare", {"text": " text"}),
        listed("citation-start", 0, "citations", {"end": 2, "sources": DOCUMENT}, {"text": "x"}),
        stop("citation-end", 1),
        finish(
            usage={"tokens": {"input_tokens": "12", "output_tokens": "3.5"}, "cached_tokens": -1}
        ),
    ],
    [
        call(0),
        arguments("{}"),
        stop("tool-call-end", 0),
        call(0, "g"),
        arguments("[]"),
        stop("tool-call-end", 0),
        content("content-start", 0, type="text", text=""),
        text("a"),
        stop("content-end", 0),
        content("content-start", 0, type="thinking", thinking=""),
        thinking("b"),
        stop("content-end", 0),
        citation(0, 0, 1, "a"),
        stop("citation-end", 0),
        citation(0, 0, 1, "b"),
        finish(),
    ],
    [
        without_index(content("content-start", 0)),
        without_index(thinking("t")),
        without_index(stop("content-end", 0)),
        without_index(text("x")),
        without_index(thinking("u")),
        {
            "type": "tool-call-start",
            "delta": {"message": {"tool_calls": {"function": {"name": "f"}}}},
        },
        without_index(arguments("{}")),
        {"type": "tool-call-start", "delta": {"message": {"tool_calls": {}}}},
        without_index(stop("tool-call-end", 0)),
        without_index(citation(0, 0, 1, "x")),
        without_index(stop("citation-end", 0)),
        {"type": "message-end"},
    ],
]
POOL = [event for flow in FLOWS for event in flow]

# --- values --------------------------------------------------------------------------------------

WORDS = [
    *(
        "",
        " ",
        "a",
        " the",
        "é",
        "東",
        "🚢",
        "\ufeff",
        "\u2028",
        "\u0085",
        "\0",
        "\n",
        "\r\n",
        '"',
        "\\",
    ),
    *("\ud83d", "\ude00", "\ud83d\ude00", "\ude00\ud83d", "a\ud83d", "\ude00b", "\ud83d\ud83d"),
    *("}}}}", '"}}}}', "[DONE]", "null", "\x1b[0m", "data: x", "\x7f", "\ufffd", "\U0010ffff"),
]
KINDS = ["text", "thinking", "image", "", "function", "document", "PLAN", "TEXT_CONTENT"]
NUMBERS = [
    0,
    1,
    2,
    -1,
    63,
    64,
    7.0,
    0.5,
    -0.0,
    1e300,
    2**31,
    2**63,
    2**64,
    -(2**70),
    10**30,
    10**320,
    True,
]
ODD: list[Any] = [None, None, False, [], {}, [None], {"a": None}, [[]], "7", *NUMBERS, *WORDS]
INDEXES: list[Any] = [0, 0, 1, 1, 2, 3, 63, 64, -1, 99_999, 10**5, 100_001, 2**40, 1.0, None]
COUNTS: list[Any] = [
    *("12", "012", "3.50", "", " 1", "-1", "1e3", "1.", ".5", "1" * 15, "1" * 16, "1." + "2" * 15),
    *(
        0,
        1,
        2.0,
        0.5,
        -1,
        -0.0,
        2**53,
        2**53 + 1,
        1e300,
        10**30,
        True,
        None,
        [],
        {},
        "\u0661",
        "+1",
    ),
]
TYPES = [*sorted({event.get("type", "x") for event in POOL}), "error", "future", ""]
FIELDS = [
    "index",
    "text",
    "thinking",
    "type",
    "id",
    "extra",
    "message",
    "usage",
    "sources",
    "error",
]
SPELLINGS: list[Callable[[Any], str]] = [
    json.JSONEncoder(separators=(",", ":")).encode,
    json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode,
    json.JSONEncoder().encode,
    json.JSONEncoder(indent=1).encode,
    json.JSONEncoder(separators=(" , ", ":\t")).encode,
]
NUMBER_TEXTS = [
    *(
        "1e400",
        "-1e400",
        "1e-400",
        "NaN",
        "Infinity",
        "-Infinity",
        "01",
        "1.",
        ".5",
        "-",
        "-0",
        "+1",
    ),
    *("1E+2", "0.1e1", "2e0", "10e-1", "123456789012345678901234567890", "9" * 4300, "9" * 4301),
    *("9" * 308, "9" * 309, "-" + "9" * 400, "1" * 400 + ".5", "0." + "1" * 400, "1e" + "9" * 400),
    *("18446744073709551615", "18446744073709551616", "-9223372036854775809", "1e19", "1.7e308"),
    *("0.30000000000000004", "5e-324", "2.2250738585072011e-308", "1_0", "0x1", "1e", "1.0e+"),
]

# --- one event as JSON ---------------------------------------------------------------------------


def bend(value: Any, draw: Random, chance: float) -> Any:
    """A copy with nulls, wrong types, odd texts, lost and foreign fields here and there."""
    if draw.random() < chance:
        return draw.choice(ODD)
    if isinstance(value, dict):
        changed = {}
        for key, item in value.items():
            roll = draw.random()
            if roll < chance:
                continue
            if key == "index" and roll < 0.3:
                item = draw.choice(INDEXES)
            elif key == "type" and roll < 0.1:
                item = draw.choice(TYPES if "delta" in value or "index" in value else KINDS)
            elif isinstance(item, str) and roll < 0.25:
                item = draw.choice(WORDS)
            else:
                item = bend(item, draw, chance)
            changed[key] = item
        if draw.random() < 0.1:
            changed[draw.choice(FIELDS)] = draw.choice(ODD)
        if draw.random() < 0.15:
            items = list(changed.items())
            draw.shuffle(items)
            changed = dict(items)
        return changed
    if isinstance(value, list):
        return [bend(item, draw, chance) for item in value]
    return value


def spell(event: Any, draw: Random) -> str:
    """An event as JSON text, in one of many spellings, sometimes with what no encoder writes."""
    roll = draw.random()
    line = SPELLINGS[0 if roll < 0.6 else draw.randrange(len(SPELLINGS))](event)
    roll = draw.random()
    if roll < 0.5:
        # Raw UTF-8, as the server writes it; lone halves stay escapes.
        line = UNESCAPE(event, line)
    elif roll < 0.54:
        line = line.replace("a", "\\u0061")
    elif roll < 0.56:
        line = line.replace(":", ":" + draw.choice(NUMBER_TEXTS) + ',"index":', 1)
    elif roll < 0.60:
        position = line.rfind("}")
        extra = draw.choice(('"x":', '"index":', '"type":')) + draw.choice(
            (*NUMBER_TEXTS, '"\\ud83d"', '"\x01"', '"\\q"', '"text"', '"content-end"', "[1,]", "{}")
        )
        line = line[:position] + "," + extra + line[position:]
    elif roll < 0.603:
        depth = draw.choice((3, 20, 150, 199, 200, 201, 600, 2600))
        line = line[:-1] + ',"deep":' + "[" * depth + "]" * depth + "}"
    return line


def UNESCAPE(event: Any, line: str) -> str:
    if "\\u" not in line:
        return line
    raw = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return raw.encode("utf-8", "backslashreplace").decode()


# --- shapes that gateways send -------------------------------------------------------------------

ABSENT = object()
NOTHING: list[Any] = [ABSENT, ABSENT, None, {}, []]
PLACES: list[Any] = [0, 0, 0, 0, 1, 1, 2, 3, 100_000, ABSENT, ABSENT, ABSENT, None]
TEXTS = ["", "a", "b", " c", "\ud83d", "\ude00", "é", "null", "{}"]
IDS: list[Any] = ["", "a", "b", "call_0", "call_1", "call_3", ABSENT, ABSENT, None]


def given(**fields: Any) -> Json:
    """An object of the fields that are not absent."""
    return {name: value for name, value in fields.items() if value is not ABSENT}


def rarely(value: Any, draw: Random, chance: float = 0.05) -> Any:
    """The value, or nothing in one of its forms."""
    return draw.choice(NOTHING) if draw.random() < chance else value


def as_some(make_one: Callable[[], Any], draw: Random) -> Any:
    """One thing, a list of one, of several, or of none."""
    roll = draw.random()
    if roll < 0.5:
        return make_one()
    if roll < 0.6:
        return draw.choice(NOTHING)
    items = [make_one() for _ in range(draw.choice((1, 1, 2, 2, 3)))]
    if draw.random() < 0.15:
        items.insert(draw.randint(0, len(items)), None)
    return items


def piece_of_content(draw: Random) -> Any:
    roll = draw.random()
    if roll < 0.1:
        return draw.choice(("", "bare", None, {}))
    kind = draw.choice(("text", "thinking"))
    fields: Json = {kind: draw.choice((*TEXTS, None))} if draw.random() < 0.8 else {}
    if draw.random() < 0.3:
        fields["type"] = kind
    if draw.random() < 0.1:
        fields[draw.choice(("type", "text", "thinking", "extra"))] = draw.choice(
            ("text", "thinking", "image", "", None, "x", 7)
        )
    return fields


def some_arguments(draw: Random) -> Any:
    if draw.random() < 0.6:
        return draw.choice(TEXTS)
    return draw.choice(
        (ABSENT, None, {}, {"a": 1}, {"b": [1.0, None, "é\ud83d"], "a": {}}, [], {"n": 10**30}, 7)
    )


def some_call(draw: Random) -> Any:
    function = given(name=draw.choice(("f", "g", "", ABSENT, None)), arguments=some_arguments(draw))
    return given(
        index=draw.choice((ABSENT,) * 8 + (0, 1, 2, 100_000, 100_001, -1, 1.0, True, "1", None)),
        id=draw.choice(IDS),
        type=draw.choice((ABSENT, "function", "function", "", None)),
        function=rarely(function, draw),
    )


def some_citation(draw: Random) -> Any:
    return given(
        start=draw.choice((0, 0, 1, 1.0, ABSENT, None)),
        end=draw.choice((1, 2, ABSENT, None)),
        text=draw.choice(("x", "a\ud83d", ABSENT, None)),
        sources=draw.choice(
            (ABSENT, None, [], {}, DOCUMENT, [DOCUMENT], [DOCUMENT, RESULT], [None], "", 0, False)
        ),
        type=draw.choice((ABSENT, ABSENT, "TEXT_CONTENT", "THINKING_CONTENT", "PLAN", None)),
        content_index=draw.choice((ABSENT, ABSENT, 0, 1, 2, None)),
    )


def some_end(draw: Random) -> Json:
    counts = {name: draw.choice(COUNTS) for name in ("input_tokens", "output_tokens", "future")}
    usage = given(
        billed_units=draw.choice((ABSENT, counts, None, [], "7", {"input_tokens": "7"})),
        tokens=draw.choice((ABSENT, counts, counts | {"reasoning_tokens": "1"}, 7)),
        cached_tokens=draw.choice((ABSENT, draw.choice(COUNTS))),
        future=draw.choice((ABSENT, None, {"a": [1]})),
    )
    delta = given(
        finish_reason=draw.choice(("COMPLETE", "ERROR", "", ABSENT, None)),
        usage=draw.choice((usage, usage, usage, ABSENT, None, [], "7", {})),
        error=draw.choice((ABSENT,) * 5 + (None, "no", "", {"message": "no"}, ["a", {"b": 1}], {})),
        error_type=draw.choice((ABSENT, ABSENT, None, "T")),
    )
    return given(type="message-end", delta=rarely(delta, draw))


SPACES = (
    (
        ("content-start", "content-delta", "content-delta", "content-end"),
        "content",
        piece_of_content,
    ),
    (("tool-call-start", "tool-call-delta", "tool-call-end"), "tool_calls", some_call),
    (("citation-start", "citation-end"), "citations", some_citation),
)


def loose_event(draw: Random, space: int) -> Json:
    """A start, a delta or an end of one index space, as optional as the specification has it."""
    names, field, make_one = SPACES[space]
    name = draw.choice(names)
    index = draw.choice(PLACES)
    if name.endswith("-end"):
        return given(type=name, index=index)
    fields = {field: as_some(lambda: make_one(draw), draw)}
    message = rarely(given(**fields), draw, 0.03)
    event = given(type=name, index=index, delta=rarely(given(message=message), draw, 0.03))
    if name == "content-delta" and draw.random() < 0.1:
        event["logprobs"] = draw.choice(
            (LOGPROBS, [LOGPROBS], [LOGPROBS] * 2, [], [None], {}, None, "x")
        )
    return event


def loose_start(draw: Random) -> Json:
    """A message-start, usually an empty one."""
    message: Json = {
        "content": draw.choice(([], None, "", FILLED["content"])),
        "tool_plan": draw.choice(("", None, "p")),
        "tool_calls": draw.choice(
            (
                [],
                None,
                {},
                [{"function": {"name": "f", "arguments": "{}"}}] * 2,
                FILLED["tool_calls"],
            )
        ),
        "citations": draw.choice(([], None, FILLED["citations"])),
    }
    usual = draw.choice((EMPTY, EMPTY, EMPTY, message, ABSENT, None, [], "x"))
    delta = draw.choice((given(message=usual), given(message=usual), ABSENT, None))
    return given(
        type="message-start", id=draw.choice(("m", "m", "m", "n", "", ABSENT)), delta=delta
    )


def loose_events(draw: Random) -> list[Json]:
    """Events of one index space, or of all: starts that repeat an index, ends of nothing."""
    events = [loose_start(draw)] if draw.random() < 0.3 else []
    favourite = draw.randrange(3)
    for _ in range(draw.randint(2, 9)):
        roll = draw.random()
        if roll < 0.9:
            events.append(loose_event(draw, favourite))
        elif roll < 0.96:
            events.append(loose_event(draw, draw.randrange(3)))
        else:
            events.append(draw.choice((loose_start(draw), plan(draw.choice(TEXTS)))))
    if draw.random() < 0.4:
        events.append(some_end(draw))
    return events


def loose_blocks(draw: Random) -> bytes:
    """The same as an event stream."""
    blocks = []
    for event in loose_events(draw):
        if draw.random() < 0.1:
            event = bend(event, draw, 0.05)
        if draw.random() < 0.05:
            blocks.append(keep_alive(draw))
        name = str(event.get("type") if isinstance(event, dict) else "message")
        blocks.append(framed(spell(event, draw), name, draw))
    return b"".join(blocks)


NAMES = [
    b"",
    b"",
    b"message",
    b"error",
    b"ping",
    b"keepalive",
    b"content-delta",
    b"message-end",
    b"x",
]


def keep_alive(draw: Random) -> bytes:
    """A frame that is not an event of the answer, or might not be one."""
    name = draw.choice(NAMES)
    data = draw.choice(
        (
            *(b"", b" ", b"\t\x0b", b"{}", b"[]", b"null", b"7", b"ping", b'"[DONE]"', b"[DONE]"),
            *(
                b'{"type":null}',
                b'{"type":"ping"}',
                b'{"type":7}',
                b'{"type":[]}',
                b'{"type":{"a":1}}',
                b'{"message":"hi"}',
                b'{"a":"\\ud83d"}',
            ),
            *(b'{"status":"ok","detail":null}', b'{"error":null}', b'{"error":{}}', b'{"a":1e400}'),
            *(
                b'{"type":"content-end"}',
                b'{"type":"debug"}',
                b"\xff",
                b"NaN",
                b"\ndata: ",
                b"2026-11-30",
            ),
        )
    )
    return (b"event: %s\n" % name if name else b"") + b"data: %s\n\n" % data


WORDS_OF_ERRORS: list[Any] = [
    *("no", "", None, 0, 7, False, [], {}, {"message": "no"}, ["a"], [None], {"a": None}, "\ud83d"),
    *([{"loc": ["body", 0], "msg": "m"}], {"errors": {"a": ["b"]}}, {"error": {"code": 429}}),
]
KINDS_OF_ERRORS: list[Any] = [
    *(
        None,
        "error",
        "Error",
        "invalid_request_error",
        "RateLimitERROR",
        "future",
        "",
        7,
        [],
        "debug",
    ),
    *("content-end", "about:blank"),
]


def failure(draw: Random) -> bytes:
    """An error object in the shapes of many servers, or something like it."""
    item: Json = {}
    for key in ("message", "error", "detail", "errors", "code", "title", "status"):
        if draw.random() < 0.3:
            item[key] = draw.choice(WORDS_OF_ERRORS)
    if draw.random() < 0.5:
        item["type"] = draw.choice(KINDS_OF_ERRORS)
    if draw.random() < 0.15:
        item["object"] = draw.choice(("error", "chunk", None))
    name = draw.choice(NAMES)
    head = b"event: %s\n" % name if name else b""
    value = [item] if draw.random() < 0.03 else item
    return head + b"data: %s\n\n" % SPELLINGS[0](value).encode()


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in plain data, with each of its keys or positions."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places_in(value[key])


def one_odd(draw: Random) -> bytes:
    """A few good events of which one has one value that is odd, or lacks it."""
    flow = draw.choice(FLOWS)
    events = json.loads(json.dumps(some(flow, draw, 6) if draw.random() < 0.7 else flow))
    container, key = draw.choice(list(places_in(draw.choice(events))) or [([0], 0)])
    if draw.random() < 0.15:
        del container[key]
    else:
        wrap = draw.random() < 0.15
        container[key] = [container[key]] if wrap else draw.choice(ODD)
    return b"".join(
        framed(SPELLINGS[0](event), str(event.get("type", "message")), draw) for event in events
    )


def loose(draw: Random) -> bytes:
    """An answer as gateways send it, with failures and keep-alives between its events."""
    roll = draw.random()
    if roll < 0.55:
        return loose_blocks(draw)
    if roll < 0.75:
        return one_odd(draw)
    parts = some(draw.choice(PLAIN), draw, 3) if draw.random() < 0.3 else []
    make_one = failure if roll < 0.9 else keep_alive
    return b"".join([*parts, *(make_one(draw) for _ in range(draw.randint(1, 4)))])


CROWD: list[Any] = [{}, [], 1, None, "", "a", 1.5, {"a": 1}, [[]], {"text": "a"}, {"x": {}}]
CROWD += [{"type": "text", "text": "a"}, {"start": 0, "end": 1}, {"document": {}}, {"index": 3}]
CROWD += [{"function": {"name": "f", "arguments": "{}"}}, {"id": "c"}, "\ud83d", 10**320]
HASHED_ALIKE = 2**61 - 1
"""CPython hashes an integer modulo this: its multiples collide."""


def crowded(draw: Random) -> bytes:
    """An answer one of whose values is a crowd, or whose indices are many and collide."""
    if draw.random() < 0.3:
        make_one = draw.choice((lambda n: text("a", n), call, lambda n: citation(n, n, n + 1, "a")))
        step = draw.choice((1, 64, -1, HASHED_ALIKE, HASHED_ALIKE % 100_001))
        bound = draw.choice((2**70, 100_001))
        events = [
            START,
            *(make_one(n * step % bound) for n in range(draw.randint(2, 60))),
            finish(),
        ]
        return b"".join(framed(SPELLINGS[0](each), "message", draw) for each in events)
    events = json.loads(json.dumps(some(draw.choice(FLOWS), draw, 6)))
    container, key = draw.choice(list(places_in(draw.choice(events))) or [([0], 0)])
    count = int(10 ** draw.uniform(0.3, 2.6))
    crowd: Any = [draw.choice(CROWD)] * count
    if draw.random() < 0.4:
        crowd[draw.randrange(count)] = draw.choice(CROWD)
    container[key] = crowd if draw.random() < 0.8 else {str(n): v for n, v in enumerate(crowd)}
    return b"".join(
        framed(SPELLINGS[0](each), str(each.get("type", "message")), draw) for each in events
    )


def commented(body: bytes, draw: Random) -> bytes:
    """The same with comments between its lines, long and short."""
    lines = []
    for line in body.split(b"\n"):
        while draw.random() < 0.3:
            lines.append(
                b":" + draw.choice((b"", b"c", b" keep-alive", b"c" * draw.randint(1, 400)))
            )
        lines.append(line)
    if draw.random() < 0.2:
        lines.append(b":" + b"c" * draw.randint(0, 400))
    return b"\n".join(lines)


def json_lines(draw: Random) -> bytes:
    """A body of JSON lines: ends of all kinds, blank lines, things that are not JSON."""
    events = some(draw.choice(FLOWS), draw, 6) if draw.random() < 0.5 else loose_events(draw)
    end = draw.choice((b"\n", b"\n", b"\n", b"\r\n", b" \n", b"\n\n", b"\r\r\n"))
    lines = []
    for event in events:
        value = bend(event, draw, 0.03) if draw.random() < 0.2 else event
        lines.append(spell(value, draw).encode("utf-8", "surrogatepass"))
        if draw.random() < 0.08:
            lines.append(
                draw.choice(
                    (
                        *(
                            b"",
                            b" ",
                            b"\x0b",
                            b"[DONE]",
                            b"nonsense",
                            b"\xef\xbb\xbf",
                            b"7",
                            b"\xff",
                        ),
                        *(
                            b'{"type":"\xff"}',
                            b'{"type":"\\ud83d"}',
                            b'{"type":7,"a":1}',
                            b"data: {}",
                        ),
                        *(b'{"type":""}', b'{"message":"no"}', b'{"type":"error"}', b'{"a":\r1}'),
                    )
                )
            )
    body = end.join(lines) + (end if draw.random() < 0.5 else b"")
    roll = draw.random()
    if roll < 0.1:
        body = body[: draw.randrange(len(body) + 1)]
    elif roll < 0.2:
        position = draw.randrange(len(body) + 1)
        body = body[:position] + draw.choice(TOKENS) + body[position:]
    return body


# --- frames --------------------------------------------------------------------------------------

PLAIN: list[list[bytes]] = []
"""Each flow's frames as the server writes them: no drawing, so fast."""
for _flow in FLOWS:
    PLAIN.append(
        [
            b"event: %s\ndata: %s\n\n"
            % (
                str(_event.get("type", "message")).encode(),
                UNESCAPE(_event, SPELLINGS[0](_event)).encode(),
            )
            for _event in _flow
        ]
        + [b"data: [DONE]\n\n"]
    )
DONES = [
    *(b"data: [DONE]\n\n", b"data:[DONE]\n\n", b'data: "[DONE]"\n\n', b"data:  [DONE] \n\n"),
    *(b"data: [DONE]\ndata: x\n\n", b"event: error\ndata: [DONE]\n\n", b"data: [done]\n\n"),
    *(b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE][DONE]\n\n", b"data\ndata: [DONE]\n\n"),
]
BETWEEN = [
    *(
        b": keep-alive\n\n",
        b":\n",
        b"id: 7\n",
        b"id: \n\n",
        b"id\n",
        b"id: \0\n",
        b"retry: 100\n\n",
    ),
    *(
        b"retry: 1x\n",
        b"retry: 007\n",
        b"retry: +1\n",
        b"retry: \xd9\xa1\n",
        b"retry:\n",
        b"\n",
        b"\n\n",
    ),
    *(
        b"\r\n",
        b"\r",
        b"\n\n\n",
        b"data\n\n",
        b"data:\n\n",
        b"event: error\n",
        b"event:\n",
        b"foo: bar\n",
    ),
    *(
        b"\xef\xbb\xbf",
        b"\xff",
        b"\xc3",
        b"data: {}\n\n",
        b"data: null\n\n",
        b"event: x\n\n",
        b" data: x\n",
    ),
    *(b"id: \xf0\x9f\n", b"data: 7\n\n", b'event: error\ndata: {"message":"no"}\n\n', b"\0\n"),
]
TOKENS = [
    *BETWEEN,
    *DONES,
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"null", b"\\ud83d", b"\\ude00", b"1e400"),
    *(
        b'"type"',
        b'"index":',
        b'{"type":"',
        b'"text":"',
        b'"}}}}',
        b"\ndata: ",
        b"\nid: 9",
        b"data: ",
    ),
    *(
        b"content-delta",
        b"message-end",
        b"message-start",
        b"\xed\xa0\xbd",
        b"\xf0\x9f\x98\x80",
        b"\xe2",
    ),
    b'data: {"type":"content-end","index":0}\n\n',
    b'data: {"type":"message-end","delta":{"finish_reason":"X"}}\n\n',
]
LANES = [
    (
        b'event: content-delta\ndata: {"type":"content-delta","index":%d,"delta":{"message":'
        b'{"content":{"%s":"' % (index, kind),
        b'"}}}}',
    )
    for index in (0, 1, 63, 64)
    for kind in (b"text", b"thinking")
] + [
    (
        b'event: tool-call-delta\ndata: {"type":"tool-call-delta","index":%d,"delta":'
        b'{"message":{"tool_calls":{"function":{"arguments":"' % index,
        b'"}}}}}',
    )
    for index in (0, 1)
]
LANES.append(
    (
        b'event: tool-plan-delta\ndata: {"type":"tool-plan-delta","delta":{"message":{"tool_plan":"',
        b'"}}}',
    )
)
PIECES = [
    *(
        b"a",
        b" the",
        b"",
        b"\xc3\xa9",
        b"\\n",
        b"\\u00e9",
        b"\\/",
        b"c\\ud83d",
        b"\\ude00d",
        b"\\uD83D",
    ),
    *(
        b"\\ud83d\\ude00",
        b'\\"',
        b"\\\\",
        b'"',
        b"\\",
        b"\\u12",
        b"\\q",
        b"\n",
        b"\r",
        b"\x01",
        b"\x7f",
    ),
    *(
        b"\xff",
        b"\xe2\x82",
        b"\xed\xa0\xbd",
        b'"}}}}',
        b'","x":"',
        b"\nid: 7",
        b"\ndata: ",
        b'"}}}}\ndata: ',
    ),
    *(b'","thinking":"y', b'"},"z":{"q":"', b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\0"),
]


def framed(line: str, name: str, draw: Random) -> bytes:
    """One event as a block: usual for the most part."""
    data = line.encode("utf-8", "surrogatepass")
    roll = draw.random()
    if roll < 0.7:
        if b"\n" in data:
            data = data.replace(b"\n", b"\ndata: ")
        return b"event: %s\ndata: %s\n\n" % (name.encode("utf-8", "replace"), data)
    if roll < 0.78:
        return b"data:" + data.replace(b"\n", b"\ndata:") + b"\n\n"
    if roll < 0.83:
        position = draw.randrange(len(data) + 1)
        return b"data: %s\ndata: %s\n\n" % (data[:position], data[position:])
    if roll < 0.88:
        return b"id: %d\ndata: %s\nevent: %s\n\n" % (
            len(data),
            data,
            draw.choice((b"x", b"", b"message-end")),
        )
    if roll < 0.90:
        return b"event: error\ndata: " + data + b"\n\n"
    if roll < 0.95:
        return draw.choice(BETWEEN) + b"data: " + data + b"\n\n"
    return b"event: %s\ndata: %s\n" % (name.encode("utf-8", "replace"), data) + draw.choice(BETWEEN)


def some(flow: list[Any], draw: Random, most: int) -> list[Any]:
    """A few neighbours, from the beginning more often than not."""
    start = 0 if draw.random() < 0.6 else draw.randrange(len(flow))
    return flow[start : start + draw.randint(1, most)]


def bent_events(draw: Random) -> bytes:
    """A few events of one flow, or of several, each perhaps bent."""
    events = some(draw.choice(FLOWS), draw, 5)
    roll = draw.random()
    if roll < 0.3:
        events = [*events[:2], *(draw.choice(POOL) for _ in range(draw.randint(1, 3)))]
    elif roll < 0.4:
        events = [*events, *events[-2:]]
    elif roll < 0.5:
        events = events.copy()
        draw.shuffle(events)
    blocks = []
    chance = draw.choice((0.0, 0.01, 0.03, 0.1))
    for event in events:
        given = bend(event, draw, chance) if draw.random() < 0.7 else event
        name = event.get("type", "message")
        blocks.append(framed(spell(given, draw), name, draw))
    if draw.random() < 0.2:
        blocks.append(draw.choice(DONES))
    return b"".join(blocks)


def broken_bytes(draw: Random) -> bytes:
    """Frames as the server writes them, then damaged: swapped, doubled, flipped, cut, stuffed."""
    blocks = some(draw.choice(PLAIN), draw, 7)
    if draw.random() < 0.2:
        blocks = blocks + some(draw.choice(PLAIN), draw, 3)
    if draw.random() < 0.2:
        first, second = draw.randrange(len(blocks)), draw.randrange(len(blocks))
        blocks = blocks.copy()
        blocks[first], blocks[second] = blocks[second], blocks[first]
    body = bytearray(b"".join(blocks))
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3, 6))):
        position = draw.randrange(len(body) + 1)
        roll = draw.randrange(6)
        if roll == 0:
            body[position : position + 1] = bytes([draw.randrange(256)])
        elif roll == 1:
            body[position : position + draw.randint(1, 20)] = b""
        elif roll == 2:
            body[position:position] = body[position : position + draw.randint(1, 60)]
        elif roll == 3 and position < len(body):
            body[position] ^= 1 << draw.randrange(8)
        else:
            body[position:position] = draw.choice(TOKENS)
    return bytes(body)


def lane_run(draw: Random) -> bytes:
    """Deltas of one block in a row, their strings as odd as can be."""
    favourite = draw.choice(LANES)
    parts = draw.choice(PLAIN)[: draw.randint(0, 2)]
    if favourite[1] == b'"}}}}}' and draw.random() < 0.9:
        parts = [*parts, PLAIN[2][5], PLAIN[2][11]]
    for _ in range(draw.randint(2, 6)):
        before, after = favourite if draw.random() < 0.85 else draw.choice(LANES)
        roll = draw.random()
        middle = (
            draw.choice(PIECES[:9]) if roll < 0.7 else draw.choice(PIECES) + draw.choice(PIECES)
        )
        parts.append(before + middle + after + b"\n\n")
        if roll > 0.9:
            parts.append(draw.choice((*BETWEEN, *draw.choice(PLAIN))))
    return b"".join(parts)


def soup(draw: Random) -> bytes:
    """Tokens of the format in any order."""
    return b"".join(draw.choices(TOKENS, k=draw.randint(1, 14)))


def noise(draw: Random) -> bytes:
    """Bytes, of all 256 or of those that matter."""
    if draw.random() < 0.5:
        return draw.randbytes(draw.randint(0, 60))
    return bytes(
        draw.choices(
            b'data:event id\r\n\r\n\n\0{}[]",\\\xef\xbb\xbf\xf0\x9f7', k=draw.randint(1, 80)
        )
    )


def large(draw: Random) -> bytes:
    """Up to 200 kB of one thing: time and memory must stay in proportion."""
    size = draw.choice((1000, 20_000, 100_000))
    return draw.choice(
        (
            lambda: b"data: " + b"x" * size + b"\n\n",
            lambda: b"data: x\n" * (size // 8) + b"\n",
            lambda: b"\r" * size,
            lambda: b":" + b"c" * size,
            lambda: b"data: " + b"[" * size + b"\n\n",
            lambda: b'data: {"type":"x","a":' + b'{"a":' * size + b"\n\n",
            lambda: b'data: {"type":"content-end","index":' + b"1" * size + b"}\n\n",
            lambda: b"retry: " + b"0" * size + b"7\ndata: x\n\n",
            lambda: b"".join(PLAIN[0][:2]) + PLAIN[0][2] * (size // 120),
            lambda: (
                b'data: {"type":"citation-start","delta":{"message":{"citations":{"start":0,"end":1,'
                b'"text":"","sources":[{"document":{"%s":[%s0]}}]}}}}\n\n'
                b'data: {"type":"message-end","delta":{"finish_reason":"X"}}\n\n'
                % (b"k" * (size // 2), b"0," * (size // 4))
            ),
        )
    )()


def make(draw: Random) -> Input:
    """The next input."""
    roll = draw.random()
    lines = False
    if roll < 0.25:
        body = bent_events(draw)
    elif roll < 0.55:
        body = loose(draw)
    elif roll < 0.65:
        body, lines = json_lines(draw), True
    elif roll < 0.82:
        body = broken_bytes(draw)
    elif roll < 0.9:
        body = lane_run(draw)
    elif roll < 0.92:
        body = crowded(draw)
    elif roll < 0.96:
        body = soup(draw)
    elif roll < 0.9996:
        body = noise(draw)
    else:
        body = large(draw)
    limited = 0.06
    if draw.random() < 0.05:
        body, limited = commented(body, draw), 0.8
    roll = draw.random()
    if roll < 0.06:
        body = body.replace(b"\n", b"\r\n")
    elif roll < 0.1:
        body = body.replace(b"\n", b"\r")
    elif roll < 0.13:
        ends = (b"\n", b"\r\n", b"\r")
        body = b"".join(line + draw.choice(ends) for line in body.split(b"\n"))
    elif roll < 0.15:
        body = b"\xef\xbb\xbf" * draw.randint(1, 2) + body
    elif roll < 0.16:
        body = body[: draw.randrange(len(body) + 1)]
    return Input(body, cuts(body, draw), a_limit(body, draw, limited), lines)


def a_limit(body: bytes, draw: Random, chance: float) -> int | None:
    """A small limit, often the size of one of the blocks or one byte less."""
    if draw.random() >= chance:
        return None
    if draw.random() < 0.5:
        return draw.choice((1, 16, 64, 100, 200, 300))
    return max(1, len(draw.choice(body.split(b"\n\n"))) - draw.randint(-1, 2))


def cuts(body: bytes, draw: Random) -> tuple[int, ...]:
    """Whole, in a few pieces, or byte by byte."""
    roll = draw.random()
    if roll < 0.3 or not body:
        return ()
    size = len(body)
    if roll < 0.95 or size > 400:
        return tuple(sorted(draw.randint(0, size) for _ in range(draw.randint(1, 6))))
    return tuple(
        range(1 if roll < 0.97 else draw.randint(1, 9), size, draw.choice((1, 1, 2, 3, 7)))
    )
