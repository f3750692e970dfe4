"""Answers out of documents and tool results, with citations; imports ``streamchat.protocol`` only.

A *passage* is something that can be quoted, with where it comes from. Whatever the answer says
between the quotes is ours; whatever it quotes is verbatim, so that every citation's ``text`` is the
slice from ``start`` to ``end`` (code points) and stands in its source.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import attrs

from streamchat.local.conversation import READ_LIMIT, Conversation
from streamchat.local.shapes import list_or_empty, object_or_empty, parse_json
from streamchat.local.words import sentences, split_name, stems
from streamchat.protocol.messages import Citation, Source

__all__ = ["Quoting", "answer_from_documents", "answer_from_results", "plan_from_results"]

MAX_QUOTES = 3
"""Passages of documents in one answer."""
MAX_FACTS = 4
"""Values of one tool result in one answer."""
MAX_SOURCES = 8
"""Sources of one citation."""
MAX_RESULTS = 50
"""Tool results that one answer goes through, from the first one on."""
READ_TOTAL = 1_000_000
"""Code points of all documents, or of all tool results, that are read."""
MAX_PASSAGES = 20_000
"""Passages that are compared with the question."""
MAX_LABEL = 200
"""Code points of a key that are read."""
_SENTENCE_ENDS = (".", "!", "?", "…", "\u3002", "\uff01", "\uff1f")
"""The last three are the full-width ones of Chinese and Japanese."""


@attrs.define
class Passage:
    """Something that can be quoted."""

    text: str
    """What is quoted, verbatim."""
    label: str
    """What a bare value is the value of; empty for a sentence."""
    sources: list[Source]
    """Where it stands; more than one when several documents say the same."""
    words: frozenset[str]
    """The stems that a question is compared with."""
    near: frozenset[str] = frozenset()
    """Stems of the same document's short fields, such as its title: they count half."""


class Quoting:
    """A text under construction that knows where its quotes are."""

    def __init__(self, kind: str = "TEXT_CONTENT") -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._kind = kind
        self.citations: list[Citation] = []

    def say(self, text: str) -> None:
        """Add words of our own."""
        self._pieces.append(text)
        self._length += len(text)

    def quote(self, passage: Passage) -> None:
        """Add a quote and its citation."""
        start = self._length
        self.say(passage.text)
        self.citations.append(
            Citation(start, self._length, passage.text, passage.sources, self._kind)
        )

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._pieces)


# --- documents -----------------------------------------------------------------------------------


def answer_from_documents(
    documents: Iterable[Any], talk: Conversation, openings: tuple[str, ...], variant: int
) -> Quoting:
    """The sentences that share most with the question, or a sentence that nothing fits.

    Args:
        documents: ``documents`` of the request: strings, or objects with ``data``.
        talk: the question; when it shares nothing, the question before it is added.
        openings: what may stand before the quotes, one of which is chosen.
        variant: which opening.
    """
    passages = _merge(_document_passages(documents))
    chosen = _choose(passages, talk.question)
    if not chosen and talk.earlier:
        chosen = _choose(passages, f"{talk.earlier[-1]} {talk.question}")
    answer = Quoting()
    if not chosen:
        answer.say("The documents do not say anything about that.")
        return answer
    answer.say(openings[variant % len(openings)])
    for position, passage in enumerate(chosen):
        answer.say(" " if position else "")
        if passage.label:
            answer.say(f"The {passage.label} is ")
        answer.quote(passage)
        answer.say("" if passage.text.endswith(_SENTENCE_ENDS) else ".")
    return answer


def _document_passages(documents: Iterable[Any]) -> Iterator[Passage]:
    reading = _Reading()
    for position, item in enumerate(documents):
        if reading.left <= 0:
            return
        data = item if isinstance(item, str) else object_or_empty(item).get("data")
        fields: Mapping[str, Any] = _fields(data, keep_values=True)
        own = object_or_empty(item).get("id")
        name = own if isinstance(own, str) and own else f"doc:{position}"
        source = Source("document", name, dict(sorted({**fields, "id": name}.items())))
        yield from reading.passages(fields, source)


def _fields(data: Any, *, keep_values: bool) -> dict[str, Any]:
    """A document's data as keys and values; a text that is no JSON object stands under
    ``content``, as recorded. Tool outputs hold strings only: nested values as JSON text."""
    if isinstance(data, str):
        parsed = parse_json(data) if data.lstrip().startswith("{") else None
        if not isinstance(parsed, Mapping):
            return {"content": data}
        data = object_or_empty(parsed)
    fields = dict(sorted(object_or_empty(data).items()))
    if keep_values:
        return fields
    return {key: value if isinstance(value, str) else _json(value) for key, value in fields.items()}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@attrs.define
class _Reading:
    """Takes passages out of documents until ``READ_TOTAL`` code points are read."""

    left: int = READ_TOTAL

    def passages(self, fields: Mapping[str, Any], source: Source) -> Iterator[Passage]:
        """Sentences of the long fields, values of the short ones."""
        quotable = {key: text for key, text in fields.items() if key != "id"}
        titles = [text for text in quotable.values() if isinstance(text, str) and _is_short(text)]
        near = stems(" ".join(titles[:MAX_LABEL]))
        for key, value in quotable.items():
            if self.left <= 0:
                return
            if isinstance(value, str) and not _is_short(value):
                text = value[: min(READ_LIMIT, self.left)]
                self.left -= len(text)
                for sentence in sentences(text):
                    yield Passage(sentence, "", [source], stems(sentence), near)
            else:
                yield from self._facts(key[:MAX_LABEL], value, source, near)

    def _facts(
        self, label: str, value: Any, source: Source, near: frozenset[str]
    ) -> Iterator[Passage]:
        """The values inside a value, each with the key it stands under."""
        self.left -= 1 + len(label)
        if self.left <= 0:
            return
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            self.left -= len(value)
            value = parse_json(value) or value
        if isinstance(value, Mapping):
            near |= stems(label)
            for key, item in object_or_empty(value).items():
                yield from self._facts(key[:MAX_LABEL], item, source, near)
        elif isinstance(value, list):
            for item in list_or_empty(value):
                yield from self._facts(label, item, source, near)
        elif value is not None:
            text = (value if isinstance(value, str) else _json(value)).strip()[:READ_LIMIT]
            self.left -= len(text)
            if text:
                name = split_name(label).strip()
                yield Passage(text, name, [source], stems(f"{name} {text}"), near)


def _is_short(text: str) -> bool:
    """Whether a field is a value or a title rather than sentences."""
    return len(text) <= 80 and not text.rstrip().endswith(_SENTENCE_ENDS) and "\n" not in text


def _merge(passages: Iterable[Passage]) -> list[Passage]:
    """Passages with the same words become one with all their sources."""
    known: dict[tuple[str, str], Passage] = {}
    for passage in islice(passages, MAX_PASSAGES):
        first = known.setdefault((passage.text, passage.label), passage)
        if (
            first is not passage
            and len(first.sources) < MAX_SOURCES
            and passage.sources[0] not in first.sources
        ):
            first.sources += passage.sources
    return list(known.values())


_OVERVIEW = stems("summary summarise summarize overview outline gist documents")


def _choose(passages: list[Passage], question: str) -> list[Passage]:
    """The best passages in document order; those that score less than half of the best are out."""
    asked = stems(question)
    if asked & _OVERVIEW:
        return [passage for passage in passages if not passage.label][:MAX_QUOTES]
    scored = [
        (len(asked & passage.words) + len(asked & passage.near - passage.words) / 2, -position)
        for position, passage in enumerate(passages)
        if asked & passage.words
    ]
    if not scored:
        return []
    best = max(scored)[0]
    top = sorted(scored, reverse=True)[:MAX_QUOTES]
    return [passages[-place] for score, place in sorted(top, key=_place) if score * 2 > best]


def _place(scored: tuple[float, int]) -> int:
    return -scored[1]


# --- tool results --------------------------------------------------------------------------------


def answer_from_results(talk: Conversation, openings: tuple[str, ...], variant: int) -> Quoting:
    """What the tools found, each value cited."""
    answer = Quoting()
    answer.say(openings[variant % len(openings)])
    _say_results(answer, talk)
    return answer


def plan_from_results(talk: Conversation) -> Quoting:
    """The same for a plan before the next call: citations of type ``PLAN``."""
    plan = Quoting("PLAN")
    _say_results(plan, talk)
    return plan


def _say_results(answer: Quoting, talk: Conversation) -> None:
    asked = stems(talk.question)
    reading = _Reading()
    for position, message in enumerate(talk.results[:MAX_RESULTS]):
        if reading.left <= 0:
            return
        call = talk.calls.get(str(message.get("tool_call_id")), {})
        answer.say(" " if position else "")
        chosen = _chosen_facts(_merge(_result_passages(message, reading)), asked)
        if not chosen:
            name = str(call.get("name") or "tool")[:MAX_LABEL]
            answer.say(f"The {name} tool returned nothing.")
        elif all(not passage.label for passage in chosen):
            _say_sentences(answer, chosen)
        else:
            _say_facts(answer, chosen, _subject(call))


def _result_passages(message: Mapping[str, Any], reading: _Reading) -> Iterator[Passage]:
    """Passages of one tool message; one without an id is cited as ``<tool_call_id>:<n>``, as recorded."""
    call_id = str(message.get("tool_call_id"))
    content = message.get("content")
    text = {"type": "text", "text": content}
    parts = [text] if isinstance(content, str) else list_or_empty(content)
    for position, item in enumerate(parts):
        if reading.left <= 0:
            return
        part = object_or_empty(item)
        document = object_or_empty(part.get("document"))
        data = document.get("data") if part.get("type") == "document" else part.get("text")
        fields = _fields(data if data is not None else "", keep_values=False)
        own = document.get("id")
        name = own if isinstance(own, str) and own else f"{call_id}:{position}"
        yield from reading.passages(fields, Source("tool", name, tool_output=fields))


def _chosen_facts(passages: list[Passage], asked: frozenset[str]) -> list[Passage]:
    """The values that the question asks for; if there are none, the first values."""
    fitting = [passage for passage in passages if asked & stems(passage.label or passage.text)]
    return (fitting or passages)[:MAX_FACTS]


def _say_sentences(answer: Quoting, passages: list[Passage]) -> None:
    for position, passage in enumerate(passages):
        answer.say(" " if position else "")
        answer.quote(passage)
        answer.say("" if passage.text.endswith(_SENTENCE_ENDS) else ".")


def _say_facts(answer: Quoting, passages: list[Passage], subject: str) -> None:
    answer.say(f"For {subject}, the " if subject else "The ")
    for position, passage in enumerate(passages):
        if position:
            answer.say(" and the " if position == len(passages) - 1 else ", the ")
        answer.say(f"{passage.label.lower() or 'result'} is ")
        answer.quote(passage)
    answer.say(".")


def _subject(call: Mapping[str, Any]) -> str:
    """What a call was about: its text arguments."""
    arguments = parse_json(str(call.get("arguments") or "null"))
    values = object_or_empty(arguments).values()
    told = (value for value in values if isinstance(value, str) and len(value) <= 60)
    return ", ".join(islice(told, MAX_FACTS))
