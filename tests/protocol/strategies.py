"""Hypothesis strategies: every event, every answer, and text of the kinds that break parsers."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from streamchat.protocol.events import (
    EVENT_CLASSES,
    MAX_INDEX,
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
    LogprobItem,
    Source,
    TextContent,
    ThinkingContent,
    TokenCounts,
    ToolCall,
    ToolCallFunction,
    Usage,
)
from streamchat.protocol.response import ChatResponse

AWKWARD = [
    "\n",
    "\r",
    '"',
    "\\",
    "}}}}",
    '"}}}}',
    "\u2028",
    "\0",
    "\x1b",
    "é",
    "東",
    "🚢",
    "[DONE]",
]
text = st.lists(
    st.one_of(
        st.sampled_from(AWKWARD),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        st.text("ab ", max_size=3),
    ),
    max_size=4,
).map("".join)
words = text.filter(bool)
indices = st.one_of(st.integers(0, 3), st.integers(0, MAX_INDEX))
counts = st.one_of(st.none(), st.integers(0, 10**6), st.floats(0, 1e6, allow_nan=False))
floats = st.floats(allow_nan=False, allow_infinity=False)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(text, json_values, max_size=3)


def extras(*known: str) -> st.SearchStrategy[dict[str, Any]]:
    """Unknown keys of an object."""
    return st.dictionaries(text.filter(lambda key: key not in known), json_values, max_size=2)


sources = st.builds(
    Source,
    type=st.none() | st.sampled_from(["document", "tool"]) | text,
    id=st.none() | text,
    document=st.none() | objects,
    tool_output=st.none() | objects,
)
citations = st.builds(
    Citation,
    start=st.integers(0, 999),
    end=st.integers(0, 999),
    text=text,
    sources=st.lists(sources, max_size=2),
    type=st.none() | st.sampled_from(["TEXT_CONTENT", "THINKING_CONTENT", "PLAN"]) | text,
    content_index=st.none() | indices,
)
tool_calls = st.builds(
    ToolCall,
    id=text,
    function=st.builds(ToolCallFunction, name=text, arguments=text),
    type=st.just("function") | text,
)
logprobs = st.builds(
    LogprobItem,
    token_ids=st.lists(st.integers(0, 10**6), max_size=3),
    text=st.none() | text,
    logprobs=st.none() | st.lists(floats, max_size=3),
)
parts = st.builds(TextContent, text) | st.builds(ThinkingContent, text)
messages = st.builds(
    AssistantMessage,
    content=st.lists(parts, max_size=2),
    tool_plan=text,
    tool_calls=st.lists(tool_calls, max_size=2),
    citations=st.lists(citations, max_size=2),
)
billed = st.builds(
    BilledUnits,
    input_tokens=counts,
    output_tokens=counts,
    search_units=counts,
    classifications=counts,
    extra=extras("input_tokens", "output_tokens", "search_units", "classifications", "extra"),
)
tokens = st.builds(
    TokenCounts,
    input_tokens=counts,
    output_tokens=counts,
    image_tokens=counts,
    reasoning_tokens=counts,
    extra=extras("input_tokens", "output_tokens", "image_tokens", "reasoning_tokens", "extra"),
)
usages = st.builds(
    Usage,
    billed_units=billed,
    tokens=tokens,
    cached_tokens=counts,
    extra=extras("billed_units", "tokens", "cached_tokens", "extra"),
)
finish_reasons = st.sampled_from(["COMPLETE", "TOOL_CALL", "ERROR", "FUTURE"]) | text

content_starts = st.builds(ContentStart, index=indices, text=text) | st.builds(
    ContentStart, index=indices, kind=st.just("thinking"), thinking=text
)
content_deltas = st.builds(
    ContentDelta, text=text, index=indices, logprobs=st.none() | logprobs
) | st.builds(
    ContentDelta,
    thinking=text,
    index=indices,
    kind=st.just("thinking"),
    logprobs=st.none() | logprobs,
)
unknown_types = text.filter(
    lambda name: name != "error" and name not in {cls.type for cls in EVENT_CLASSES}
)
unknown_events = st.tuples(unknown_types, extras("type")).map(
    lambda pair: UnknownEvent(pair[0], {"type": pair[0], **pair[1]})
)
by_class: dict[type, st.SearchStrategy[Any]] = {
    MessageStart: st.builds(MessageStart, id=text, message=st.just(AssistantMessage()) | messages),
    ContentStart: content_starts,
    ContentDelta: content_deltas,
    ContentEnd: st.builds(ContentEnd, index=indices),
    ToolPlanDelta: st.builds(ToolPlanDelta, tool_plan=text),
    ToolCallStart: st.builds(ToolCallStart, tool_call=tool_calls, index=indices),
    ToolCallDelta: st.builds(ToolCallDelta, arguments=text, index=indices),
    ToolCallEnd: st.builds(ToolCallEnd, index=indices),
    CitationStart: st.builds(CitationStart, citation=citations, index=indices),
    CitationEnd: st.builds(CitationEnd, index=indices),
    MessageEnd: st.builds(
        MessageEnd,
        finish_reason=finish_reasons,
        usage=usages,
        error=st.none() | text,
        error_type=st.none() | text,
    ),
    Debug: st.builds(Debug, prompt=st.none() | text),
    UnknownEvent: unknown_events,
}
events: st.SearchStrategy[Event] = st.one_of(*by_class.values())
responses = st.builds(
    ChatResponse,
    id=text,
    message=messages,
    finish_reason=finish_reasons,
    usage=usages,
    logprobs=st.lists(logprobs, max_size=2),
)
