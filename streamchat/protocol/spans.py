"""Which text a citation addresses, and text split into plain and cited runs; imports the vocabulary.

Offsets are Python code points, counted from the start of one block, in every recorded citation; order
and overlap of citations are not promised.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from itertools import pairwise
from typing import Literal

import attrs

from streamchat.protocol.messages import AssistantMessage, Citation, TextContent
from streamchat.protocol.record import FrozenRecord

__all__ = ["CitedKind", "CitedSpan", "cited_place", "cited_spans", "split_cited"]

CitedKind = Literal["text", "thinking", "plan"]
"""What a citation can address: a text block, a thinking block, or the tool plan."""


@attrs.frozen(eq=False, repr=False)
class CitedSpan(FrozenRecord):
    """A run of text that one set of citations covers, as long as possible."""

    text: str
    """The run itself; never empty."""
    start: int
    """Its first code point, counted from the start of its block (or of the plan)."""
    end: int
    """One past its last code point."""
    citations: tuple[Citation, ...] = ()
    """All citations that cover it, in order of arrival; empty where nothing is cited."""
    block: int | None = None
    """Its block: the position in ``message.content``; ``None`` for the plan."""


def cited_place(
    citation: Citation,
    blocks: Container[int],
    last: Mapping[Literal["text", "thinking"], int | None],
) -> int | Literal["plan"] | None:
    """Where the text stands that a citation's offsets address.

    ``PLAN`` is the plan. Otherwise the block that ``content_index`` names, if there is one;
    otherwise the last thinking block for ``THINKING_CONTENT``, the last text block for anything
    else. Without a text block, a citation of 2024, which has no type, can only mean the plan.

    Args:
        blocks: the indices of the content blocks so far.
        last: by kind (``"text"``, ``"thinking"``) the index of the block that was opened last, or
            ``None``.

    Returns:
        The block's index, ``"plan"``, or ``None`` where there is no such text.
    """
    if citation.type == "PLAN":
        return "plan"
    if citation.content_index is not None and citation.content_index in blocks:
        return citation.content_index
    if citation.type == "THINKING_CONTENT":
        return last.get("thinking")
    text = last.get("text")
    if text is not None:
        return text
    return "plan" if citation.type is None else None


def split_cited(
    text: str, citations: Iterable[Citation], block: int | None = None
) -> list[CitedSpan]:
    """Split a text at every start and end of a citation; the runs' texts joined are the text.

    Overlaps need no rule beyond that: each run names all citations that cover it, and two
    neighbours never name the same. A citation counts if it is not empty and its own ``text`` stands
    at its offsets, to the letter. One that says otherwise (negative, reversed or too large offsets,
    other words) marks nothing, because a marker at the wrong words is worse than none.

    O(n log n) in citations, and linear in the text and in the citations' own texts: a run is at
    least one code point long, so that even nested citations name no more than was received.

    Args:
        citations: those of this text, in order of arrival.
        block: handed on to :attr:`CitedSpan.block`.
    """
    counted = [citation for citation in citations if _stands_in(text, citation)]
    opening: dict[int, list[int]] = {}
    closing: dict[int, list[int]] = {}
    for number, citation in enumerate(counted):
        opening.setdefault(citation.start, []).append(number)
        closing.setdefault(citation.end, []).append(number)
    open_now: set[int] = set()
    spans: list[CitedSpan] = []
    for start, end in pairwise(sorted({0, len(text), *opening, *closing})):
        open_now.difference_update(closing.get(start, ()))
        open_now.update(opening.get(start, ()))
        covering = tuple(counted[number] for number in sorted(open_now))
        spans.append(CitedSpan(text[start:end], start, end, covering, block))
    return spans


def _stands_in(text: str, citation: Citation) -> bool:
    start, length = citation.start, citation.end - citation.start
    return (
        start >= 0
        and length == len(citation.text) > 0
        and text.startswith(citation.text, start)  # compares in place: no slice is copied
    )


def cited_spans(message: AssistantMessage, of: CitedKind = "text") -> list[CitedSpan]:
    """A message's text, thinking or plan, split by the citations that address it.

    Blocks are split one by one, in order (:func:`split_cited`), by the citations whose place they
    are (:func:`cited_place`, applied to the message as it stands now).

    Raises:
        ValueError: ``of`` is something else.
    """
    if of not in ("text", "thinking", "plan"):
        raise ValueError(f"of must be 'text', 'thinking' or 'plan', not {of!r}")
    last: dict[Literal["text", "thinking"], int] = {}
    for index, part in enumerate(message.content):
        last[part.type] = index
    indices = range(len(message.content))
    placed: dict[int | str, list[Citation]] = {}
    for citation in message.citations:
        place = cited_place(citation, indices, last)
        if place is not None:
            placed.setdefault(place, []).append(citation)
    if of == "plan":
        return split_cited(message.tool_plan, placed.get("plan", ()))
    spans: list[CitedSpan] = []
    for index, part in enumerate(message.content):
        if part.type == of:
            text = part.text if isinstance(part, TextContent) else part.thinking
            spans += split_cited(text, placed.get(index, ()), index)
    return spans
