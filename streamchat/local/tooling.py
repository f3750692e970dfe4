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
from streamchat.local.hints import Hints
from streamchat.local.schema import Schemas, Work, kinds_of
from streamchat.local.shapes import list_or_empty, object_or_empty
from streamchat.local.words import names, numbers, split_name, stems
from streamchat.protocol.messages import ToolCall, ToolCallFunction

__all__ = ["Offer", "call_id", "calls_for", "choose", "offers_in"]

READ_LIMIT = 10_000
"""Code points of one tool's descriptions that are read."""
READ_TOTAL = 400_000
"""Code points of all tools' descriptions that are read."""
MAX_SLOT = 100
"""Code points of a parameter's name that are read."""
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


def choose(offers: list[Offer], question: str, *, required: bool) -> list[Offer]:
    """The tools that fit, best first; each but the first must explain words of its own.

    A word of the tool's name counts three, one of its description or parameters one, or two from
    the description when the question has hardly any words; two points are needed.
    """
    spelled = "".join(
        f" {_OPERATORS.get(char, '')} " if char in _OPERATORS else char for char in question
    )
    said = stems(split_name(spelled))
    meant = said.union(*(group for group in _KINDRED if group & said))
    weight = 2 if len(said) <= 2 else 1

    def score(offer: Offer) -> int:
        by_name, told = meant & offer.name_words, said & offer.told - offer.name_words
        slots = said & offer.slots - offer.told - offer.name_words
        return 3 * len(by_name) + weight * len(told) + len(slots)

    ranked = sorted(offers, key=score, reverse=True)
    chosen: list[Offer] = []
    explained: frozenset[str] = frozenset()
    for offer in ranked:
        own = (said & offer.all_words) | (meant & offer.name_words)
        enough = score(offer) >= (3 if chosen else 2)
        if enough and (not chosen or (own & offer.name_words) - explained):
            chosen.append(offer)
            kin = [group for group in _KINDRED if group & own]
            explained = explained.union(own, *kin)
    if not chosen and required:
        return ranked[:1]
    return chosen[:MAX_PARALLEL]


def calls_for(offers: list[Offer], question: str, identity: bytes, work: Work) -> list[ToolCall]:
    """A call to each tool, or several when the question names several things for one slot.

    Arguments are laid out as the real stream shows them: four spaces, keys as in the schema. A tool
    without parameters has none, not even braces.
    """
    calls: list[ToolCall] = []
    for offer in offers:
        for part in _parts(offer, question, work):
            if len(calls) == MAX_PARALLEL:
                return calls
            # A schema that is no object's is no tool's: such a call has no arguments.
            filled = object_or_empty(
                fill(offer.parameters, Hints(part, offer.all_words), work=work)
            )
            text = json.dumps(filled, indent=4, ensure_ascii=False) if filled else ""
            identifier = call_id(offer.name, identity, len(calls))
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
        things = names(question, offer.all_words)
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
    r"\W{0,4}(?:,|&|\b(?:and|or|vs|versus|y|e|et|und)\b)\W{0,4}(?:\w{1,12}\s){0,2}\W?"
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
