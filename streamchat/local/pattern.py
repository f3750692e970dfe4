"""Regular expressions of JSON Schema, matched and generated in bounded time. Imports nothing of ours.

Python's ``re`` backtracks: a pattern such as ``^(a+)+$`` takes years on forty characters, and it
cannot be interrupted. Here a pattern becomes a nondeterministic automaton, whose matching time is
linear in the text (Thompson, "Regular expression search algorithm", CACM 11(6), 1968), and whose
paths are texts that match.

Supported is the common part of ECMA-262 and Python's syntax, lookahead and word boundaries
included; ``\\d``, ``\\w`` and ``\\s`` are ASCII. Not supported are backreferences, lookbehind and
Unicode properties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs

__all__ = ["Pattern", "UnsupportedPatternError"]

MAX_SOURCE = 2_000
"""Code points of a pattern."""
MAX_STATES = 5_000
"""States of an automaton; ``(a{100}){100}`` has more."""
MAX_GROUPS = 30
"""Nesting of groups."""
MAX_STEPS = 100_000
"""Transitions that one match may take, and all texts of one call of :meth:`Pattern.examples`."""
MAX_ATTEMPTS = 12
"""Texts that are tried for a pattern with lookahead or word boundaries."""
_MAX_CODE = 0x10FFFF

Ranges = tuple[tuple[int, int], ...]
"""A set of code points: sorted, disjoint ranges, both ends included."""


class UnsupportedPatternError(ValueError):
    """A pattern that is malformed, too large, or uses syntax that is not supported."""


# --- sets of characters --------------------------------------------------------------------------


def _union(ranges: list[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged)


def _complement(ranges: Ranges) -> Ranges:
    found: list[tuple[int, int]] = []
    start = 0
    for low, high in ranges:
        if start < low:
            found.append((start, low - 1))
        start = high + 1
    if start <= _MAX_CODE:
        found.append((start, _MAX_CODE))
    return tuple(found)


def _both_cases(ranges: Ranges) -> Ranges:
    more = list(ranges)
    for low, high in ranges:
        for first, last, shift in ((65, 90, 32), (97, 122, -32)):
            if max(low, first) <= min(high, last):
                more.append((max(low, first) + shift, min(high, last) + shift))
    return _union(more)


def _contains(ranges: Ranges, code: int) -> bool:
    return any(low <= code <= high for low, high in ranges)


def _of(text: str) -> Ranges:
    return _union([(ord(char), ord(char)) for char in text])


_DIGIT: Ranges = ((48, 57),)
_WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE = _of(" \t\n\r\f\v")
_CLASSES = {
    "d": _DIGIT,
    "D": _complement(_DIGIT),
    "w": _WORD,
    "W": _complement(_WORD),
    "s": _SPACE,
    "S": _complement(_SPACE),
}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_ANY_CHARACTER: Ranges = ((0, _MAX_CODE),)
_NOT_A_LINE_END = _complement(_of("\n"))
_PRINTABLE = range(0x20, 0x7F)
_LOWER = "abcdefghijklmnopqrstuvwxyz"
_ALPHABETS = (
    (_LOWER, _LOWER.upper(), "1234567890"),
    (_LOWER.upper(), "1234567890", _LOWER),
    ("1234567890", _LOWER, _LOWER.upper()),
)
"""Which characters are taken first, and in which order."""
_MIXED = "aA1-bB2_cC3.dD4@"
"""Kinds of characters in turn, for patterns such as a password's."""


def _pick(ranges: Ranges, place: int, after: int, attempt: int) -> str:
    """A character of the set.

    Args:
        ranges: the set.
        place: how many characters stand before it.
        after: how many come after it.
        attempt: the alphabet, and a number that is counted up in the last characters.
    """
    counted = attempt // 6 // 10 ** min(after, 9)
    if attempt % 2:
        for shift in range(len(_MIXED)):
            char = _MIXED[(place + attempt // 2 + counted + shift) % len(_MIXED)]
            if _contains(ranges, ord(char)):
                return char
    for alphabet in _ALPHABETS[attempt // 2 % len(_ALPHABETS)]:
        for shift in range(len(alphabet)):
            char = alphabet[(place + counted + shift) % len(alphabet)]
            if _contains(ranges, ord(char)):
                return char
    for low, high in ranges:
        start, end = max(low, _PRINTABLE.start), min(high, _PRINTABLE.stop - 1)
        if start <= end:
            return chr(start)
    low = ranges[0][0]
    return chr(low) if not 0xD800 <= low <= 0xDFFF else "\ufffd"


# --- syntax --------------------------------------------------------------------------------------

Node = tuple[Any, ...]
"""``("char", ranges)``, ``("cat", nodes)``, ``("alt", nodes)``, ``("repeat", node, least, most)``,
``("begin",)``, ``("end",)``, ``("word", whether)``, ``("look", node, whether)``."""


class _Parser:
    """Recursive descent over one pattern."""

    def __init__(self, source: str) -> None:
        if len(source) > MAX_SOURCE:
            raise UnsupportedPatternError("the pattern is too long")
        self._source = source
        self._at = 0
        self._groups = 0
        self._any_case = False
        self._any_line = False

    def parse(self) -> Node:
        node = self._alternatives()
        if self._at < len(self._source):
            raise UnsupportedPatternError("an unbalanced parenthesis")
        return node

    def _next(self) -> str:
        return self._source[self._at : self._at + 1]

    def _take(self, text: str) -> bool:
        if self._source.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _alternatives(self) -> Node:
        options = [self._sequence()]
        while self._take("|"):
            options.append(self._sequence())
        return options[0] if len(options) == 1 else ("alt", options)

    def _sequence(self) -> Node:
        nodes: list[Node] = []
        while self._next() not in ("", "|", ")"):
            node = self._atom()
            nodes.append(self._repeated(node) if node[0] != "flags" else ("cat", []))
        return ("cat", nodes)

    def _repeated(self, node: Node) -> Node:
        if self._take("*"):
            bounds: tuple[int, int | None] = (0, None)
        elif self._take("+"):
            bounds = (1, None)
        elif self._take("?"):
            bounds = (0, 1)
        elif (counts := self._counts()) is not None:
            bounds = counts
        else:
            return node
        self._take("?")  # lazy: the same language
        if self._next() in ("*", "+", "?") and self._next():
            raise UnsupportedPatternError("a quantifier after a quantifier")
        return ("repeat", node, *bounds)

    def _counts(self) -> tuple[int, int | None] | None:
        """``{2}``, ``{2,}``, ``{,3}``, ``{2,3}``; other braces are literal."""
        end = self._source.find("}", self._at)
        if self._next() != "{" or end < 0:
            return None
        least, comma, most = self._source[self._at + 1 : end].partition(",")
        if not (least + most) or any(part and not _is_number(part) for part in (least, most)):
            return None
        self._at = end + 1
        low = int(least or "0")
        high = low if not comma else int(most) if most else None
        if high is not None and high < low:
            raise UnsupportedPatternError("a repetition whose bounds are reversed")
        return low, high

    def _atom(self) -> Node:
        char = self._next()
        self._at += 1
        match char:
            case "(":
                return self._group()
            case "[":
                return ("char", self._cased(self._class()))
            case ".":
                return ("char", _ANY_CHARACTER if self._any_line else _NOT_A_LINE_END)
            case "^":
                return ("begin",)
            case "$":
                return ("end",)
            case "\\":
                return self._escape()
            case "*" | "+" | "?":
                raise UnsupportedPatternError("nothing to repeat")
            case _:
                return ("char", self._cased(_of(char)))

    def _cased(self, ranges: Ranges) -> Ranges:
        return _both_cases(ranges) if self._any_case else ranges

    def _group(self) -> Node:
        self._groups += 1
        if self._groups > MAX_GROUPS:
            raise UnsupportedPatternError("groups are nested too deeply")
        wrap: Callable[[Node], Node] = _same
        if self._take("?"):
            if self._take("="):
                wrap = _looking_at
            elif self._take("!"):
                wrap = _not_looking_at
            elif self._take("P<") or (self._next() == "<" and self._named()):
                end = self._source.find(">", self._at)
                if end < 0:
                    raise UnsupportedPatternError("a group name without an end")
                self._at = end + 1
            elif not self._take(":") and self._flags():
                self._groups -= 1
                return ("flags",)
        node = self._alternatives()
        if not self._take(")"):
            raise UnsupportedPatternError("a group without an end")
        self._groups -= 1
        return wrap(node)

    def _named(self) -> bool:
        """``(?<name>``; ``(?<=`` and ``(?<!`` look behind."""
        self._at += 1
        if self._next() in ("=", "!", ""):
            raise UnsupportedPatternError("lookbehind")
        return True

    def _flags(self) -> bool:
        """``(?i)`` and ``(?s)`` at the start; whether the group ends with them."""
        while (char := self._next()) and char in "isu":
            self._any_case |= char == "i"
            self._any_line |= char == "s"
            self._at += 1
        if self._take(")"):
            return True
        if not self._take(":"):
            raise UnsupportedPatternError("an unknown kind of group")
        return False

    def _escape(self) -> Node:
        match self._next():
            case "b" | "B" as char:
                self._at += 1
                return ("word", char == "b")
            case "A":
                self._at += 1
                return ("begin",)
            case "Z" | "z":
                self._at += 1
                return ("end",)
            case _:
                return ("char", self._cased(self._escaped()))

    def _escaped(self) -> Ranges:
        """A class or a character after a backslash."""
        char = self._next()
        self._at += 1
        if char in _CLASSES and char:
            return _CLASSES[char]
        if char in _CONTROLS and char:
            return _of(_CONTROLS[char])
        if char in ("x", "u"):
            return _of(self._hexadecimal(2 if char == "x" else 4))
        if not char or char.isalnum():
            raise UnsupportedPatternError("an escape that is not supported")
        return _of(char)

    def _hexadecimal(self, digits: int) -> str:
        if digits == 4 and self._take("{"):
            end = self._source.find("}", self._at)
            text, self._at = self._source[self._at : end], end + 1
        else:
            text = self._source[self._at : self._at + digits]
            self._at += digits
        try:
            return chr(int(text, 16))
        except (ValueError, OverflowError):
            raise UnsupportedPatternError("a malformed hexadecimal escape") from None

    def _class(self) -> Ranges:
        negated = self._take("^")
        found: list[tuple[int, int]] = []
        first = True
        while first or not self._take("]"):
            first = False
            low = self._class_item()
            if self._next() == "-" and self._source[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._class_item()
                (start, *more_low), (stop, *more_high) = low, high
                if more_low or more_high or stop[1] < start[0]:
                    raise UnsupportedPatternError("a malformed range")
                found.append((start[0], stop[1]))
            else:
                found += low
        ranges = _union(found)
        if negated:
            ranges = _complement(self._cased(ranges))
        if not ranges:
            raise UnsupportedPatternError("a class without characters")
        return ranges

    def _class_item(self) -> Ranges:
        char = self._next()
        if not char:
            raise UnsupportedPatternError("a class without an end")
        self._at += 1
        if char != "\\":
            return _of(char)
        if self._take("b"):
            return _of("\b")
        return self._escaped()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 7


def _same(node: Node) -> Node:
    return node


def _looking_at(node: Node) -> Node:
    return ("look", node, True)


def _not_looking_at(node: Node) -> Node:
    return ("look", node, False)


# --- automaton -----------------------------------------------------------------------------------


@attrs.define
class _State:
    """Reads a character of ``ranges``, or goes on without reading if an assertion holds."""

    kind: str
    """``char``, ``split``, ``begin``, ``end``, ``word``, ``look`` or ``match``."""
    next: list[int]
    ranges: Ranges = ()
    whether: bool = True
    inner: int = 0
    """Where a lookahead starts."""


class Pattern:
    """A regular expression that is found anywhere in a text, as JSON Schema's ``pattern`` is.

    Raises:
        UnsupportedPatternError: see the module.
    """

    def __init__(self, source: str) -> None:
        tree = _Parser(source).parse()
        self._states: list[_State] = []
        self._checked = False
        self.steps = 0
        """Transitions taken so far; a microsecond each, about."""
        # Before and after the match stands any text.
        after = self._new("char", [], _ANY_CHARACTER)
        match = self._new("match", [after])
        self._states[after].next.append(match)
        body = self._build(tree, match)
        before = self._new("char", [], _ANY_CHARACTER)
        self._start = self._new("split", [body, before])
        self._states[before].next.append(self._start)

    def _new(self, kind: str, following: list[int], ranges: Ranges = ()) -> int:
        if len(self._states) >= MAX_STATES:
            raise UnsupportedPatternError("the pattern is too large")
        self._states.append(_State(kind, following, ranges))
        return len(self._states) - 1

    def _build(self, node: Node, following: int) -> int:
        """The state where the node starts; after it comes ``following``."""
        match node[0]:
            case "char":
                return self._new("char", [following], node[1])
            case "cat":
                for part in reversed(node[1]):
                    following = self._build(part, following)
                return following
            case "alt":
                return self._new("split", [self._build(part, following) for part in node[1]])
            case "repeat":
                return self._repeat(node[1], node[2], node[3], following)
            case "look":
                self._checked = True
                state = self._new("look", [following])
                self._states[state].whether = node[2]
                self._states[state].inner = self._build(node[1], self._new("match", []))
                return state
            case _:
                self._checked |= node[0] == "word"
                state = self._new(node[0], [following])
                self._states[state].whether = node[-1] is not False
                return state

    def _repeat(self, node: Node, least: int, most: int | None, following: int) -> int:
        if most is None:
            loop = self._new("split", [])
            self._states[loop].next = [self._build(node, loop), following]
            following = loop
        else:
            end = following
            for _ in range(most - least):
                following = self._new("split", [self._build(node, following), end])
        for _ in range(least):
            following = self._build(node, following)
        return following

    # --- matching ---

    def accepts(self, text: str) -> bool:
        """Whether the pattern is found in the text; False if that takes too long to say."""
        match = _Match(self._states, text)
        try:
            return match.reaches(self._start, 0)
        except UnsupportedPatternError:
            return False
        finally:
            self.steps += match.steps

    # --- generating ---

    def examples(self, least: int, most: int, variant: int = 0) -> Iterator[str]:
        """Different texts of ``least`` to ``most`` code points that match, the shortest first.

        Args:
            least: the fewest code points.
            most: the most.
            variant: another number gives other texts where the pattern allows it.
        """
        seen: set[str] = set()
        limit = self.steps + MAX_STEPS
        for attempt in range(variant * 2, variant * 2 + MAX_ATTEMPTS):
            longer = attempt - variant * 2 if self._checked or attempt % 3 else 0
            for text in self._texts(least, most, attempt, 1 + longer):
                if self.steps > limit:
                    return
                if text not in seen and (not self._checked or self.accepts(text)):
                    seen.add(text)
                    yield text

    def _texts(self, least: int, most: int, attempt: int, count: int) -> Iterator[str]:
        """Texts of the ``count`` shortest lengths that are possible."""
        limit = self.steps + MAX_STEPS
        reached = self._closure({self._start: []}, 0, last=False)
        layers = [reached]
        length = 0
        while length <= most:
            if length >= least:
                final = self._closure(reached, length, last=True)
                for state, origins in final.items():
                    if self._states[state].kind == "match":
                        yield self._text(layers, origins, length, attempt)
                        count -= 1
                        break
                if not count:
                    return
            seeds: dict[int, list[int]] = {}
            for state in reached:
                if self._states[state].kind == "char":
                    seeds.setdefault(self._states[state].next[0], []).append(state)
            if not seeds or self.steps > limit:
                return
            length += 1
            reached = self._closure(seeds, length, last=False)
            layers.append(reached)

    def _closure(
        self, seeds: dict[int, list[int]], place: int, *, last: bool
    ) -> dict[int, list[int]]:
        """All states reached without reading, each with the states that were read to come there.

        Lookahead and word boundaries are taken to hold: the whole text is checked afterwards.
        """
        found: dict[int, list[int]] = {}
        for seed, origins in seeds.items():
            waiting = [seed]
            while waiting:
                number = waiting.pop()
                known = found.get(number)
                if known is not None:
                    if len(known) < 4:
                        known += [origin for origin in origins[:4] if origin not in known]
                    continue
                found[number] = list(origins[:4])
                state = self._states[number]
                if state.kind == "char":
                    continue
                if (state.kind == "begin" and place) or (state.kind == "end" and not last):
                    continue
                waiting += reversed(state.next)
        self.steps += len(found)
        return found

    def _text(
        self, layers: list[dict[int, list[int]]], origins: list[int], length: int, attempt: int
    ) -> str:
        """Follow a path back from its end."""
        chars: list[str] = []
        for place in range(length - 1, -1, -1):
            number = origins[(attempt // 3) % len(origins)]
            ranges = self._states[number].ranges
            chars.append(_pick(ranges, place, length - 1 - place, attempt))
            origins = layers[place][number]
        return "".join(reversed(chars))


class _Match:
    """One text against one automaton; lookaheads are remembered by state and place."""

    def __init__(self, states: list[_State], text: str) -> None:
        self._states = states
        self._text = text
        self._looked: dict[tuple[int, int], bool] = {}
        self.steps = 0

    def reaches(self, start: int, place: int) -> bool:
        """Whether a match begins at ``place`` in state ``start``."""
        current = [start]
        while True:
            seen: set[int] = set()
            following: list[int] = []
            code = ord(self._text[place]) if place < len(self._text) else -1
            while current:
                number = current.pop()
                if number in seen:
                    continue
                seen.add(number)
                state = self._states[number]
                if state.kind == "match":
                    return True
                if state.kind == "char":
                    if code >= 0 and _contains(state.ranges, code):
                        following.append(state.next[0])
                elif self._holds(number, state, place):
                    current += state.next
            self.steps += len(seen)
            if self.steps > MAX_STEPS:
                raise UnsupportedPatternError("matching takes too long")
            if not following:
                return False
            current = following
            place += 1

    def _holds(self, number: int, state: _State, place: int) -> bool:
        match state.kind:
            case "begin":
                return place == 0
            case "end":
                return place == len(self._text)
            case "word":
                before = place > 0 and _contains(_WORD, ord(self._text[place - 1]))
                after = place < len(self._text) and _contains(_WORD, ord(self._text[place]))
                return (before != after) is state.whether
            case "look":
                key = (number, place)
                if key not in self._looked:
                    self._looked[key] = self.reaches(state.inner, place) is state.whether
                return self._looked[key]
            case _:
                return True
