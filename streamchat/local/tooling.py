"""Which tools fit a question, and the calls to them; imports ``streamchat.protocol`` only."""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from streamchat.local.filler import fill
from streamchat.local.hints import COMMANDS, Hints
from streamchat.local.schema import Schemas, Work, kinds_of
from streamchat.local.shapes import list_or_empty, object_or_empty
from streamchat.local.words import names, numbers, split_name, stems
from streamchat.protocol.messages import ToolCall, ToolCallFunction

__all__ = ["Offer", "calls_for", "choose", "is_filled", "offers_in", "rank"]

READ_LIMIT = 10_000
"""Code points of one tool's descriptions that are read."""
READ_TOTAL = 400_000
"""Code points of all tools' descriptions that are read."""
MAX_SLOT = 100
"""Code points of a parameter's name that are read."""
MAX_OPTIONS = 200
"""Values of an enum that are compared with the question."""
MAX_PARALLEL = 8
"""Calls of one answer."""

_KINDRED = tuple(
    stems(group)
    for group in (
        "weather temperature forecast rain sunny climate degrees hot cold snow wind",
        "add sum plus total addition +",
        "subtract minus difference subtraction",
        "multiply times product multiplication",
        "divide quotient division divided",
        "time clock hour",
        "search find lookup look google query web internet",
        "email mail send",
        "price cost stock quote",
        "translate translation",
        "calculate calculator compute math",
    )
)
"""Words that mean much the same, so that *temperature* finds ``get_weather``."""
_SAYS_LITTLE = stems(
    "get set do tool function fetch call return value name use a the list given data"
)
_OPERATORS = {"+": "add", "*": "multiply", "\u00d7": "multiply", "/": "divide", "\u00f7": "divide"}


@attrs.frozen
class Offer:
    """A tool of the request, read."""

    name: str
    parameters: Mapping[str, Any]
    """The JSON Schema of the arguments."""
    name_words: frozenset[str]
    """Stems of the name."""
    told: frozenset[str]
    """Stems of the description."""
    slots: frozenset[str]
    """Stems of the parameters' names and descriptions."""

    @property
    def all_words(self) -> frozenset[str]:
        """Stems that are about the tool itself, not values for it."""
        return self.name_words | self.told | self.slots


def offers_in(request: Mapping[str, Any], work: Work) -> list[Offer]:
    """The tools that may be called; none with ``tool_choice`` ``NONE``.

    Descriptions are read until ``READ_TOTAL`` code points; the tools after that have names only.
    """
    if str(request.get("tool_choice", "")).upper() == "NONE":
        return []
    offers: list[Offer] = []
    left = READ_TOTAL
    for item in list_or_empty(request.get("tools")):
        function = object_or_empty(object_or_empty(item).get("function"))
        offer, read = _read(function, work, min(left, READ_LIMIT))
        left -= read
        offers.append(offer)
    return offers


def _read(function: Mapping[str, Any], work: Work, limit: int) -> tuple[Offer, int]:
    """A tool, and how many code points of its descriptions were read."""
    parameters = object_or_empty(function.get("parameters"))
    properties = object_or_empty(Schemas(parameters, work).resolve(parameters).get("properties"))
    name = str(function.get("name") or "")
    described = str(function.get("description") or "")[:limit]
    read = len(described)
    slots: list[str] = []
    for slot, schema in properties.items():
        if read >= limit:
            break
        told = object_or_empty(schema).get("description")
        slots += [split_name(slot[:MAX_SLOT]), str(told or "")[: limit - read]]
        read += len(slots[-1]) + len(slots[-2])
    texts = (split_name(name), described, " ".join(slots))
    return Offer(name, parameters, *(stems(text) - _SAYS_LITTLE for text in texts)), read


class _Words:
    """The words of a question, as tools are compared with them."""

    def __init__(self, question: str) -> None:
        spelled = "".join(
            f" {_OPERATORS.get(char, '')} " if char in _OPERATORS else char for char in question
        )
        self.said = stems(split_name(spelled))
        self.meant = self.said.union(*(group for group in _KINDRED if group & self.said))
        self._weight = 2 if len(self.said) <= 2 else 1

    def score(self, offer: Offer) -> int:
        """How well a tool fits.

        A word of its name counts three, one of its description or parameters one, or two from the
        description when the question has hardly any words.
        """
        by_name = self.meant & offer.name_words
        told = self.said & offer.told - offer.name_words
        slots = self.said & offer.slots - offer.told - offer.name_words
        return 3 * len(by_name) + self._weight * len(told) + len(slots)


def rank(offers: list[Offer], question: str) -> list[Offer]:
    """All tools, the one that fits best first."""
    return sorted(offers, key=_Words(question).score, reverse=True)


def choose(offers: list[Offer], question: str) -> list[Offer]:
    """The tools that fit, best first; each but the first must explain words of its own.

    The first one needs two points, see :meth:`_Words.score`, and each further one three.
    """
    spoken = _Words(question)
    chosen: list[Offer] = []
    explained: frozenset[str] = frozenset()
    for offer in sorted(offers, key=spoken.score, reverse=True):
        own = (spoken.said & offer.all_words) | (spoken.meant & offer.name_words)
        enough = spoken.score(offer) >= (3 if chosen else 2)
        if enough and (not chosen or (own & offer.name_words) - explained):
            chosen.append(offer)
            kin = [group for group in _KINDRED if group & own]
            explained = explained.union(own, *kin)
    return chosen[:MAX_PARALLEL]


def is_filled(offer: Offer, question: str, work: Work, *, arithmetic: bool) -> bool:
    """Whether the question has a value for every required parameter of the tool.

    Args:
        offer: the tool.
        question: the question.
        work: what reading the schema is charged to.
        arithmetic: whether the question is a sum: a text alone, such as a search's, is not one.
    """
    schemas = Schemas(offer.parameters, work)
    schema = schemas.resolve(offer.parameters)
    properties = object_or_empty(schema.get("properties"))
    required = [name for name in schema.get("required", ()) if name in properties]
    slots = {name: schemas.resolve(properties[name]) for name in required}
    kinds = {name: kinds_of(slot)[0] for name, slot in slots.items() if "enum" not in slot}
    if not slots or (arithmetic and list(kinds.values()) == ["string"]):
        return False
    hints = Hints(question, offer.all_words)
    for name, slot in slots.items():
        work.spend(20)
        if "enum" in slot or "const" in slot:
            options = list_or_empty(slot.get("enum"))[:MAX_OPTIONS]
            if options and not any(map(hints.mentions, options)):
                return False
        elif kinds[name] in ("integer", "number"):
            if hints.number_for(name) is None:
                return False
        elif kinds[name] == "string":
            if not hints.has_text_for(name):
                return False
            if len(kinds) > 1:
                hints.text_for(name)  # this one is taken; the next needs another
        elif kinds[name] == "array":
            if not (hints.names or hints.quoted or hints.numbers):
                return False
        elif kinds[name] == "object":
            return False
    return True


def calls_for(
    offers: list[Offer],
    question: str,
    identity: bytes,
    work: Work,
    *,
    before: int = 0,
    told: str = "",
) -> list[ToolCall]:
    """A call to each tool, or several when the question names several things for one slot.

    Arguments are laid out as the real stream shows them: four spaces, keys as in the schema. A tool
    without parameters has none, not even braces.

    Args:
        offers: the tools.
        question: where the arguments come from.
        identity: what the ids are made of.
        work: what filling the schemas is charged to.
        before: how many calls the answer has already.
        told: what tools have answered; arguments come from it if the question has none.
    """
    calls: list[ToolCall] = []
    for offer in offers:
        for part in _parts(offer, question, work):
            if before + len(calls) == MAX_PARALLEL:
                return calls
            # A schema that is no object's is no tool's: such a call has no arguments.
            filled = object_or_empty(
                fill(offer.parameters, Hints(part, offer.all_words, told), work=work)
            )
            text = json.dumps(filled, indent=4, ensure_ascii=False) if filled else ""
            identifier = call_id(offer.name, identity, before + len(calls))
            calls.append(ToolCall(identifier, ToolCallFunction(offer.name, text)))
    return calls


def _parts(offer: Offer, question: str, work: Work) -> Iterator[str]:
    """The question once for each thing that it names for the tool's only slot of that kind."""
    schemas = Schemas(offer.parameters, work)
    schema = schemas.resolve(offer.parameters)
    properties = object_or_empty(schema.get("properties"))
    slots = [schemas.resolve(properties.get(name)) for name in schema.get("required") or properties]
    kinds = [kinds_of(slot)[0] for slot in slots if "enum" not in slot and "const" not in slot]
    things: list[str] = []
    if kinds.count("string") == 1 and "array" not in kinds:
        things = names(question, offer.all_words | COMMANDS)
    elif kinds in (["integer"], ["number"]):
        things = [str(number) for number in numbers(question)]
    things = _listed(list(dict.fromkeys(things)), question)
    if len(things) < 2:
        yield question
        return
    for thing in things[:MAX_PARALLEL]:
        others = [other for other in things if other != thing]
        part = question
        for other in sorted(others, key=len, reverse=True):
            part = part.replace(other, " ") if other not in thing else part
        yield part


_BETWEEN = re.compile(
    r"\W{0,4}(?:,|&|\b(?:and|or|vs|versus|y|e|et|und)\b)\W{0,4}(?:\w{1,12}\s){0,2}\W?",
    re.IGNORECASE,
)


def _listed(things: list[str], question: str) -> list[str]:
    """The things up to the first that does not stand in one list with those before it."""
    end = -1
    for position, thing in enumerate(things):
        start = question.find(thing, max(end, 0))
        if position and not _BETWEEN.fullmatch(question[end:start][:40]):
            return things[:position]
        end = start + len(thing)
    return things


_BASE36 = string.digits + string.ascii_lowercase


def call_id(name: str, identity: bytes, position: int) -> str:
    """``<tool name>_<12 of [0-9a-z]>``, as recorded."""
    random = hashlib.sha256(identity + position.to_bytes(4, "big")).digest()
    return f"{name}_{''.join(_BASE36[byte % 36] for byte in random[:12])}"
