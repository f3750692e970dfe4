"""Text split into plain and cited runs, and which text a citation addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamchat.protocol import Accumulator, ChatResponse
from streamchat.protocol.events import CitationEnd, CitationStart, ContentStart, ToolPlanDelta
from streamchat.protocol.messages import (
    AssistantMessage,
    Citation,
    Source,
    TextContent,
    ThinkingContent,
)
from streamchat.protocol.spans import (
    CitedKind,
    CitedSpan,
    cited_place,
    cited_spans,
    split_cited,
)

from . import strategies
from .helpers import events_of, examples, needs_shared, read_all
from .test_recordings import OWN, RECORDED, name

KINDS: tuple[CitedKind, ...] = ("text", "thinking", "plan")
TEXT = "a 🚢 cites é"


def cite(start: int, end: int, text: str | None = None, **more: Any) -> Citation:
    """A citation of ``TEXT``, by default with the words that stand there."""
    return Citation(start, end, TEXT[start:end] if text is None else text, **more)


def marks(spans: list[CitedSpan], *known: Citation) -> list[tuple[str, list[int]]]:
    """Each run with the numbers of the citations that it names."""
    return [
        (span.text, [number for span_citation in span.citations
                     for number, citation in enumerate(known) if citation is span_citation])
        for span in spans
    ]  # fmt: skip


# --- one text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "citations"),
    [
        ([(TEXT, [])], []),
        ([(TEXT, [0])], [cite(0, 11)]),
        ([("a ", []), ("🚢", [0]), (" cites é", [])], [cite(2, 3)]),
        ([("a 🚢 ", []), ("cites", [0]), (" é", [1])], [cite(4, 9), cite(9, 11)]),
        ([("a", [1]), (" 🚢 cites ", []), ("é", [0])], [cite(10, 11), cite(0, 1)]),
        # Overlapping, nested, the same twice, and the same start.
        ([("a ", [0]), ("🚢", [0, 1]), (" cites", [1]), (" é", [])], [cite(0, 3), cite(2, 9)]),
        ([("a ", [0]), ("🚢", [0, 1]), (" cites é", [0])], [cite(0, 11), cite(2, 3)]),
        ([("a ", [1]), ("🚢", [0, 1]), (" cites é", [1])], [cite(2, 3), cite(0, 11)]),
        ([("a ", []), ("🚢", [0, 1]), (" cites é", [])], [cite(2, 3), cite(2, 3)]),
        ([("a ", [0, 1]), ("🚢", [0]), (" cites é", [])], [cite(0, 3), cite(0, 2)]),
    ],
    ids=lambda value: str(len(value)),
)
def test_there_is_a_boundary_at_every_start_and_end(
    expected: list[tuple[str, list[int]]], citations: list[Citation]
) -> None:
    """Each run names all citations that cover it, in order of arrival."""
    assert expected == marks(split_cited(TEXT, citations), *citations)


@pytest.mark.parametrize(
    "wrong",
    [
        cite(3, 3, ""),
        cite(3, 2, ""),
        cite(-3, 2, "a "),
        cite(-1, 11, TEXT),
        cite(0, 12, TEXT),
        cite(9, 10**30, " é"),
        cite(50, 52, "no"),
        cite(0, 1, "b"),
        cite(0, 3, "a"),
        cite(0, 1, "a 🚢"),
        cite(0, 4, "a 🚢"),  # UTF-16 units
        cite(0, 6, "a 🚢"),  # bytes
    ],
    ids=str,
)
def test_a_citation_that_does_not_fit_marks_nothing(wrong: Citation) -> None:
    """Nor does it take anything from those that fit; the text is whole."""
    right = cite(4, 9)
    assert [CitedSpan(TEXT, 0, 11)] == split_cited(TEXT, [wrong])
    assert split_cited(TEXT, [right]) == split_cited(TEXT, [wrong, right])


def test_a_run_says_where_it_stands() -> None:
    """Offsets in code points, the block as given, frozen, compared by value."""
    citation = cite(2, 3, sources=[Source("document", "d")])
    spans = split_cited(TEXT, [citation], 7)
    assert CitedSpan("🚢", 2, 3, (citation,), 7) == spans[1]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        spans[0].text = ""  # type: ignore[misc]  # that is what is tried


def test_an_empty_text_has_no_runs() -> None:
    """With and without citations."""
    assert split_cited("", []) == []
    assert split_cited("", [cite(0, 0, ""), cite(0, 1, "a")]) == []


offsets = st.integers(-3, 14) | st.integers()
any_text = st.text(st.sampled_from("a b\u00e9東🚢\u0301\n"), max_size=12)


@st.composite
def fitting(draw: st.DrawFn, text: str) -> Citation:
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, len(text)))
    return Citation(start, end, text[start:end])


@st.composite
def cited_texts(draw: st.DrawFn) -> tuple[str, list[Citation]]:
    text = draw(any_text)
    nonsense = st.builds(Citation, offsets, offsets, any_text)
    return text, draw(st.lists(fitting(text) | nonsense, max_size=8))


@given(cited_texts())
@examples(400)
def test_the_runs_are_the_text_and_name_what_covers_them(
    cited: tuple[str, list[Citation]],
) -> None:
    """Held against the definition, code point by code point, whatever the offsets say."""
    text, citations = cited
    spans = split_cited(text, citations)
    assert text == "".join(span.text for span in spans)
    assert all(span.text == text[span.start : span.end] != "" for span in spans)
    fit = [
        citation
        for citation in citations
        if 0 <= citation.start < citation.end <= len(text)
        and text[citation.start : citation.end] == citation.text
    ]
    covers = [
        [id(citation) for citation in fit if citation.start <= position < citation.end]
        for position in range(len(text))
    ]
    assert covers == [
        [id(citation) for citation in span.citations] for span in spans for _ in span.text
    ]
    edges = {0, len(text)} | {edge for one in fit for edge in (one.start, one.end)}
    assert [span.start for span in spans] == sorted(edges)[:-1]


def test_ten_thousand_citations_are_no_trouble() -> None:
    """A megabyte of text: cost by the citation, not by citation times text."""
    text = "abcdé fgh🚢" * 100_000
    apart = [Citation(at, at + 50, text[at : at + 50]) for at in range(0, 1_000_000, 100)]
    assert len(split_cited(text, apart)) == 20_000
    far = [Citation(-5, 10**9, text)] * 10_000
    assert len(split_cited(text, far)) == 1


# --- which text ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "fields", "last"),
    [
        (1, {"type": "TEXT_CONTENT"}, {"thinking": 0, "text": 1}),
        (1, {"type": "TEXT_CONTENT", "content_index": 9}, {"thinking": 0, "text": 1}),
        (1, {"type": "TEXT_CONTENT", "content_index": -1}, {"thinking": 0, "text": 1}),
        (0, {"type": "TEXT_CONTENT", "content_index": 0}, {"thinking": 0, "text": 1}),
        (0, {"type": "THINKING_CONTENT"}, {"thinking": 0, "text": 1}),
        (None, {"type": "THINKING_CONTENT"}, {"text": 1}),
        (None, {"type": "TEXT_CONTENT"}, {"thinking": 0}),
        ("plan", {"type": "PLAN"}, {"thinking": 0, "text": 1}),
        ("plan", {"type": "PLAN", "content_index": 0}, {"text": 0}),
        (1, {}, {"text": 1}),
        (1, {"type": "OF_THE_FUTURE"}, {"text": 1}),
        ("plan", {}, {}),
        ("plan", {}, {"thinking": 0}),
        (None, {"type": "OF_THE_FUTURE"}, {"thinking": 0}),
    ],
)
def test_a_citation_finds_its_text(
    expected: int | str | None, fields: dict[str, Any], last: dict[Literal["text", "thinking"], int]
) -> None:
    """By the plan's type, by content_index, by kind; without a type and a text it is the plan."""
    assert expected == cited_place(cite(0, 1, **fields), range(2), last)


def mixed() -> ChatResponse:
    """All three kinds of text, each cited at the same offsets."""
    return ChatResponse(
        message=AssistantMessage(
            [ThinkingContent("to think"), TextContent("a first"), TextContent("so text")],
            "my plan",
            citations=[
                Citation(0, 2, "my", type="PLAN"),
                Citation(0, 2, "to", type="THINKING_CONTENT"),
                Citation(0, 2, "so", type="TEXT_CONTENT"),
                Citation(3, 7, "text"),
                Citation(0, 1, "a", type="TEXT_CONTENT", content_index=1),
            ],
        )
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("text", [("a", 0, 1, [4]), (" first", 1, 1, []),
                  ("so", 0, 2, [2]), (" ", 2, 2, []), ("text", 3, 2, [3])]),
        ("thinking", [("to", 0, 0, [1]), (" think", 2, 0, [])]),
        ("plan", [("my", 0, None, [0]), (" plan", 2, None, [])]),
    ],
)  # fmt: skip
def test_text_thinking_and_plan_are_kept_apart(kind: CitedKind, expected: list[Any]) -> None:
    """Each is split by its own citations, block by block; a run knows its block."""
    answer = mixed()
    spans = answer.cited_spans(kind)
    assert spans == cited_spans(answer.message, kind)
    assert expected == [
        (span.text, span.start, span.block, [answer.citations.index(one) for one in span.citations])
        for span in spans
    ]


def test_the_text_is_what_is_meant_by_default() -> None:
    """``cited_spans()`` is ``cited_spans("text")``, and an empty answer has no runs."""
    answer = mixed()
    assert answer.cited_spans("text") == answer.cited_spans()
    assert [ChatResponse().cited_spans(kind) for kind in KINDS] == [[], [], []]


def test_another_kind_is_refused() -> None:
    """A misspelt kind is an error that names the three."""
    with pytest.raises(
        ValueError, match="of must be 'text', 'thinking' or 'plan', not 'tool_plan'"
    ):
        ChatResponse().cited_spans("tool_plan")  # type: ignore[arg-type]  # that is what is tried


def whole(answer: ChatResponse) -> dict[CitedKind, str]:
    return {"text": answer.text, "thinking": answer.thinking, "plan": answer.tool_plan}


def joined(answer: ChatResponse) -> dict[CitedKind, str]:
    return {kind: "".join(span.text for span in answer.cited_spans(kind)) for kind in KINDS}


citations_of_anything = st.builds(
    Citation,
    offsets,
    offsets,
    any_text,
    type=st.sampled_from(["TEXT_CONTENT", "THINKING_CONTENT", "PLAN", "OTHER", None]),
    content_index=st.none() | st.integers(-2, 4),
)


@given(strategies.messages, st.lists(citations_of_anything, max_size=8))
@examples(200)
def test_the_runs_joined_are_the_answer(
    message: AssistantMessage, citations: list[Citation]
) -> None:
    """For any blocks and any citations, of any kind."""
    message.citations = [*message.citations, *citations]
    answer = ChatResponse(message=message)
    assert whole(answer) == joined(answer)


steps = st.lists(
    st.sampled_from(["text", "thinking", "plan"])
    | st.builds(
        Citation,
        st.just(0),
        st.just(1),
        st.just("x"),
        type=st.sampled_from(["TEXT_CONTENT", "THINKING_CONTENT", "PLAN", "OTHER", None]),
        content_index=st.none() | st.integers(-1, 4),
    ),
    max_size=9,
)


@given(steps)
@examples(300)
def test_the_rule_is_the_accumulators(sequence: list[str | Citation]) -> None:
    """Whatever has come so far, a citation's event shows the text that the rule names."""
    accumulator, texts, plan = Accumulator(), list[str](), ""
    last: dict[Literal["text", "thinking"], int] = {}
    for number, step in enumerate(sequence):
        if isinstance(step, Citation):
            event = accumulator.add(CitationStart(step, number))
            assert isinstance(event, CitationStart)
            place = cited_place(step, range(len(texts)), last)
            expected = plan if place == "plan" else "" if place is None else texts[place]
            assert expected == event.block
        elif step == "plan":
            plan += f"{number}."
            accumulator.add(ToolPlanDelta(f"{number}."))
        else:
            kind: Literal["text", "thinking"] = "text" if step == "text" else "thinking"
            last[kind] = len(texts)
            texts.append(f"{number}.")
            accumulator.add(ContentStart(last[kind], kind, **{kind: texts[-1]}))


# --- recordings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*OWN, *RECORDED], ids=name)
def test_every_streamed_citation_marks_its_text(path: Path) -> None:
    """Each citation is named by the runs of one kind, whose texts joined are its own text.

    And the rule that finds its text is the accumulator's: what the event showed as ``block`` is the
    beginning of what the whole answer has there.
    """
    data = path.read_bytes()
    answer = read_all([data], fast=False)[1]
    assert whole(answer) == joined(answer)
    for citation in answer.citations:
        covered = [
            "".join(span.text for span in answer.cited_spans(kind)
                    if any(one is citation for one in span.citations))
            for kind in KINDS
        ]  # fmt: skip
        assert "".join(covered) == citation.text
        assert sum(map(bool, covered)) == 1
    events = events_of(data)
    last = {part.type: index for index, part in enumerate(answer.message.content)}
    assert len(last) == len(answer.message.content)  # one block of a kind: nothing is ambiguous
    for event in events:
        if isinstance(event, CitationStart | CitationEnd):
            place = cited_place(event.citation, range(len(answer.message.content)), last)
            assert place is not None
            blocks = cited_spans(answer.message, "plan") if place == "plan" else [
                span for span in (*answer.cited_spans(), *answer.cited_spans("thinking"))
                if span.block == place
            ]  # fmt: skip
            assert "".join(span.text for span in blocks).startswith(event.block)
            assert event.block


@needs_shared
def test_the_streams_have_citations_of_every_form() -> None:
    """Of the text, of the plan (our own), of 2024 without a type: the test above has work to do."""
    events = [event for path in (*OWN, *RECORDED) for event in events_of(path.read_bytes())]
    types = [event.citation.type for event in events if isinstance(event, CitationStart)]
    assert {"TEXT_CONTENT", "PLAN", None} <= set(types)
    assert any(isinstance(event, ContentStart) and event.kind == "thinking" for event in events)
