"""Filling a JSON Schema from a question: tool arguments and JSON answers.

A value validates as far as the schema can be satisfied: type, ``enum``, ``const``, ``format``,
bounds, lengths, ``pattern``, ``multipleOf``, ``uniqueItems``, ``prefixItems``,
``additionalProperties``, unions and references. A schema that cannot be satisfied, or whose
``pattern`` is not supported, gets the nearest value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import islice
from typing import Any

from streamchat.local.checks import RefusalError
from streamchat.local.formats import base64_of, example_of_format
from streamchat.local.hints import Hints
from streamchat.local.schema import (
    INFINITE,
    Schemas,
    Work,
    allows_number,
    exact,
    is_number,
    is_whole,
    key_of,
    kinds_of,
)
from streamchat.local.shapes import list_or_empty, object_or_empty, strings_in
from streamchat.local.words import split_name, words

__all__ = ["fill"]

MAX_DEPTH = 8
"""Nesting below which values are as small as the schema allows, so that recursion ends."""
MAX_RICH = 200
"""Values after which the rest is as small as the schema allows too."""
MAX_OPTIONS = 200
"""Options of a union or values of an enum that are compared with the question."""
MAX_VARIANTS = 3
"""Values of each option that are tried."""
MAX_TRIES = 8
"""Options of a union that are filled until one is valid."""
VALUE_COST = 20
"""Work of one value: about 20 microseconds with its way into the answer's events."""
_PADDING = " and more text"


def fill(
    schema: Mapping[str, Any], hints: Hints, *, everything: bool = False, work: Work | None = None
) -> Any:
    """A value for the schema.

    Args:
        schema: the whole schema; ``$ref`` is looked up in it.
        hints: used up on the way.
        everything: optional properties too, not only those that the question determines.
        work: what it is charged to; a new allowance by default.

    Raises:
        RefusalError: 400 for a schema that asks for too much, is nested too deeply, or has no
            finite value.
    """
    schemas = Schemas(schema, work or Work())
    try:
        if schemas.height(schema) >= INFINITE:
            raise RefusalError(
                400, "invalid request: the JSON schema has no finite value: it requires itself."
            )
        return _Filler(schemas, hints, everything).value(schema, "", 0)
    except RecursionError:  # hundreds of references or unions inside each other
        raise RefusalError(400, "invalid request: the JSON schema is nested too deeply.") from None


class _Filler:
    """One schema and one question; hints are used up from the first property to the last."""

    def __init__(self, schemas: Schemas, hints: Hints, everything: bool) -> None:
        self._schemas = schemas
        self._spend = schemas.work.spend
        self._hints = hints
        self._everything = everything
        self._values = 0
        self._variant: int = 0
        """Above 0 for a value that must differ from an earlier one."""

    def value(self, schema: Any, name: str, depth: int) -> Any:
        """A value for a part of the schema, which stands under ``name``."""
        return self._resolved(self._schemas.resolve(schema), name, depth)

    def _resolved(self, schema: dict[str, Any], name: str, depth: int) -> Any:
        self._spend(VALUE_COST)
        self._values += 1
        if "const" in schema:
            self._schemas.charge_copy(schema["const"])
            return schema["const"]
        if list_or_empty(schema.get("enum")):
            return self._of_enum(schema)
        if schema.get("choices"):
            return self._of_union(schema, name, depth)
        if schema.get("not"):
            return self._of_negation(schema, name, depth)
        kinds = kinds_of(schema)
        kind = kinds[0]
        if self._is_frugal(depth) and "null" in kinds and kind in ("object", "array"):
            return None
        match kind:
            case "object":
                return self._object(schema, name, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer" | "number":
                return self._number(schema, name, whole=kind == "integer")
            case "boolean":
                return self._truth(schema, name)
            case "null":
                return None
            case _:
                inside = self._json_text(schema, name, depth)
                return self._text(schema, name) if inside is None else inside

    def _is_frugal(self, depth: int) -> bool:
        """Whether values are as small as possible from here on."""
        return depth >= MAX_DEPTH or self._values > MAX_RICH

    # --- enums and unions ---

    def _of_enum(self, schema: dict[str, Any]) -> Any:
        """The value of an enum that the question mentions, else the default, else the first."""
        options = list_or_empty(schema["enum"])
        self._spend(len(options) // 10)
        beside = {word: value for word, value in schema.items() if word not in ("enum", "default")}
        if len(beside) > 0:
            valid = [item for item in options if self._schemas.allows(beside, item)]
            options = valid or options
        chosen: Any = None
        if self._variant:
            chosen = options[self._variant % len(options)]
        else:
            default = schema.get("default")
            otherwise = default if default in options else options[0]
            mentioned = (item for item in options[:MAX_OPTIONS] if self._mentions(item))
            chosen = next(mentioned, otherwise)
        self._schemas.charge_copy(chosen)
        return chosen

    def _mentions(self, value: Any) -> bool:
        self._spend(2 + len(self._hints.question) // 2_000)
        return self._hints.mentions(value)

    def _of_union(self, schema: dict[str, Any], name: str, depth: int) -> Any:
        """The value of the first option that makes a valid one."""
        (options, _), *others = schema["choices"]
        base = {**schema, "choices": others}
        likely = self._ordered(options, depth)[:MAX_TRIES]
        filled: list[Any] = []
        before = self._variant
        for variant in range(before, before + MAX_VARIANTS):
            self._variant = variant
            try:
                for option in likely:
                    value = self._resolved(self._schemas.narrowed(base, option), name, depth)
                    if self._schemas.allows(schema, value):
                        return value
                    filled.append(value)
            finally:
                self._variant = before
        return filled[0]

    def _of_negation(self, schema: dict[str, Any], name: str, depth: int) -> Any:
        """A value that is valid without ``not``, and is not what it excludes."""
        rest = {word: value for word, value in schema.items() if word != "not"}
        filled: list[Any] = []
        for kind in kinds_of(rest):
            part = {**rest, "type": kind}
            value = self._resolved(part, name, depth)
            for another in self._others(part, value, name, depth, 1):
                if self._schemas.allows(schema, another):
                    return another
                filled.append(another)
        return filled[0]

    def _ordered(self, options: list[Any], depth: int) -> list[Any]:
        """The options, likeliest first: named by the question, not null; deep down the smallest."""
        options = options[:MAX_OPTIONS]
        heights = [self._schemas.height(option) for option in options]
        resolved = [self._schemas.resolve(option) for option in options]

        def rank(place: int) -> tuple[object, ...]:
            schema = resolved[place]
            impossible = heights[place] >= INFINITE or bool(schema.get("never"))
            if self._is_frugal(depth):
                return impossible, heights[place], place
            null = kinds_of(schema)[0] == "null" or ("const" in schema and schema["const"] is None)
            return impossible, null, not self._is_named(schema), place

        return [options[place] for place in sorted(range(len(options)), key=rank)]

    def _is_named(self, schema: Mapping[str, Any]) -> bool:
        """Whether the question says the constant that tells this option from the others."""
        if "const" in schema:
            return self._mentions(schema["const"])
        parts = object_or_empty(schema.get("properties")).values()
        self._spend(len(parts))
        constants = (object_or_empty(part).get("const") for part in parts)
        return any(isinstance(value, str) and self._mentions(value) for value in constants)

    # --- objects ---

    def _object(self, schema: dict[str, Any], name: str, depth: int) -> dict[str, Any]:
        known = object_or_empty(schema.get("properties"))
        required: dict[str, None] = dict(schema.get("required", {}))
        dependent = object_or_empty(schema.get("dependentRequired"))
        most = _limit(schema.get("maxProperties"), math.inf)
        filled: dict[str, Any] = {}
        waiting = [*known, *(key for key in required if key not in known)]
        self._spend(3 * len(waiting))
        optional = most - len(required)
        while waiting:
            for key in waiting:
                part = known[key] if key in known else self._schema_of_extra(schema, key)
                if key not in required:
                    if optional <= 0 or not self._is_wanted(part, key, depth):
                        continue
                    optional -= 1
                self._spend(len(key))
                filled[key] = self.value(part, key, depth + 1)
            waiting = [
                key
                for given in filled
                for key in strings_in(dependent.get(given))
                if key not in filled
            ]
            required.update(dict.fromkeys(waiting))
        self._add_entries(schema, filled, name, depth)
        return filled

    def _is_wanted(self, part: Any, key: str, depth: int) -> bool:
        """Whether an optional property is filled."""
        if part is False or (self._everything and self._values > MAX_RICH):
            return False
        if self._everything and depth < MAX_DEPTH // 2:
            return self._schemas.height(part) < INFINITE
        return self._is_determined(self._likeliest(part), key)

    def _likeliest(self, part: Any) -> dict[str, Any]:
        """The part, or its first option that is not null."""
        schema = self._schemas.resolve(part)
        if schema.get("choices"):
            options = schema["choices"][0][0][:MAX_OPTIONS]
            found = [self._schemas.resolve(option) for option in options]
            return next((option for option in found if kinds_of(option)[0] != "null"), schema)
        return schema

    def _is_determined(self, schema: Mapping[str, Any], name: str) -> bool:
        """Whether the question says something for this optional property."""
        self._spend(5)
        if "enum" in schema:
            return any(map(self._mentions, list_or_empty(schema["enum"])[:MAX_OPTIONS]))
        match kinds_of(schema)[0]:
            case "integer" | "number":
                return self._hints.number_beside(name) is not None
            case "boolean":
                return self._mentions(name)
            case "string":
                return self._hints.said_of(name) is not None or (
                    self._hints.in_format(schema.get("format"), name) is not None
                )
            case _:
                return False

    def _schema_of_extra(self, schema: Mapping[str, Any], key: str) -> Any:
        """The schema of a property that is not listed."""
        for source, part in object_or_empty(schema.get("patternProperties")).items():
            pattern = self._schemas.pattern(source)
            if pattern is not None and pattern.accepts(key):
                return part
        return schema.get("additionalProperties", {})

    def _add_entries(
        self, schema: Mapping[str, Any], filled: dict[str, Any], name: str, depth: int
    ) -> None:
        """Entries of a map, as many as ``minProperties`` demands; one if all is filled."""
        extra = schema.get("additionalProperties")
        patterned = object_or_empty(schema.get("patternProperties"))
        least = _limit(schema.get("minProperties"), 0)
        if self._everything and not filled and depth < MAX_DEPTH // 2:
            parts = list(patterned.values()) or [extra]
            ends = any(self._schemas.height(part) < INFINITE for part in parts)
            if (isinstance(extra, Mapping) or patterned) and ends:
                least = max(least, 1)
        least = min(least, _limit(schema.get("maxProperties"), math.inf))
        if (extra is False and not patterned) or len(filled) >= least:
            return
        self._spend(VALUE_COST * (least - len(filled)))
        for key in self._keys(schema, patterned, name):
            if len(filled) >= least:
                return
            if key not in filled:
                filled[key] = self.value(self._schema_of_extra(schema, key), key, depth + 1)

    def _keys(
        self, schema: Mapping[str, Any], patterned: Mapping[str, Any], name: str
    ) -> Iterator[str]:
        """Names of entries, without end unless no more can be found."""
        if patterned:
            for source in patterned:
                pattern = self._schemas.pattern(source)
                if pattern is not None and self._schemas.height(patterned[source]) < INFINITE:
                    for variant in range(1_000):
                        self._spend(10)
                        for key in islice(pattern.examples(1, 200, variant), 1):
                            if self._schemas.accepts(schema.get("propertyNames", {}), key):
                                yield key
            if schema.get("additionalProperties") is False:
                return
        names = {"type": "string", **self._schemas.resolve(schema.get("propertyNames"))}
        constrained = len(names) > 1
        for number in range(100_000):
            self._spend(10)
            if constrained:
                before, self._variant = self._variant, number
                key = self._resolved(names, "key", MAX_DEPTH)
                self._variant = before
                if isinstance(key, str):
                    yield key
            else:
                yield f"{name.removesuffix('s') or 'key'}_{number + 1}"

    # --- arrays ---

    def _array(self, schema: dict[str, Any], name: str, depth: int) -> list[Any]:
        first = list_or_empty(schema.get("prefixItems"))
        items: Any = schema.get("items", {})
        if isinstance(items, list):  # draft 7 writes prefixItems so
            first, items = list_or_empty(items), schema.get("additionalItems", {})
        high = _limit(schema.get("maxItems"), math.inf)
        low = min(_limit(schema.get("minItems"), 0), high)
        contained = _limit(schema.get("minContains"), 1) if "contains" in schema else 0
        wanted = max(low, len(first), contained)
        if (
            items is not False
            and not self._is_frugal(depth)
            and self._schemas.height(items) < INFINITE
        ):
            wanted = max(wanted, 0 if first else self._count(self._likeliest(items), low))
        elif items is False:
            wanted = len(first)
        wanted = min(wanted, high)
        self._spend(VALUE_COST * wanted)
        parts = [*first, *([items] * max(0, wanted - len(first)))][:wanted]
        for place in range(min(contained, len(parts))):
            parts[-1 - place] = {"allOf": [parts[-1 - place], schema["contains"]]}
        unique = schema.get("uniqueItems") is True
        filled: list[Any] = []
        seen: set[str] = set()
        for part in parts:
            value = self.value(part, name.removesuffix("s"), depth + 1)
            if unique:
                for another in self._others(part, value, name, depth + 1, len(filled)):
                    value, key = another, key_of(another)
                    self._spend(len(key) // 20)
                    if key not in seen:
                        seen.add(key)
                        break
                else:
                    continue  # no further value is left
            filled.append(value)
        return filled

    def _others(self, part: Any, value: Any, name: str, depth: int, taken: int) -> Iterator[Any]:
        """The value, and then others, until enough for ``taken`` earlier ones were tried."""
        yield value
        before = self._variant
        for variant in range(before + taken, before + 4 * taken + 20):
            self._variant = variant
            try:
                value = self.value(part, name, depth)
            finally:
                self._variant = before
            yield value

    def _count(self, items: Mapping[str, Any], least: int) -> int:
        """How many things of this kind the question names; at least one."""
        hints = self._hints
        if "enum" in items:
            options = list_or_empty(items["enum"])[:MAX_OPTIONS]
            return max(1, least, sum(map(self._mentions, options)))
        match kinds_of(items)[0]:
            case "integer" | "number":
                return max(1, len(hints.numbers))
            case "string":
                return max(1, len(hints.quoted or hints.names) or min(len(hints.rest), 3))
            case _:
                return 1

    # --- numbers and truth ---

    def _number(self, schema: Mapping[str, Any], name: str, *, whole: bool) -> int | float:
        hints = self._hints
        given = hints.number_beside(name) if "default" in schema else hints.number_for(name)
        for number in (given, schema.get("default")):
            if not is_number(number) or self._variant or not allows_number(schema, number):
                continue
            if not whole or is_whole(number):
                return round(number) if whole else number
        wished = next((n for n in (given, schema.get("minimum")) if is_number(n)), 1)
        return _nearest(schema, wished, whole, self._variant)

    def _truth(self, schema: Mapping[str, Any], name: str) -> bool:
        if self._variant:
            return self._variant % 2 == 0
        if self._mentions(name):
            return not self._hints.denies(name)
        default = schema.get("default")
        return default if isinstance(default, bool) else True

    # --- texts ---

    def _text(self, schema: dict[str, Any], name: str) -> str:
        if schema.get("contentEncoding") == "base64" and "format" not in schema:
            schema = {**schema, "format": "base64"}
        low = _limit(schema.get("minLength"), 0)
        self._spend(low)
        plain = ""
        for text in self._candidates(schema, name):
            plain = plain or text
            if self._schemas.allows_text(schema, text):
                self._spend(len(text) // 10)
                return text
        high = _limit(schema.get("maxLength"), math.inf)
        for source in schema.get("patterns", ()):
            pattern = self._schemas.pattern(source)
            if pattern is None:
                continue
            before = pattern.steps
            found = (
                text
                for text in pattern.examples(low, min(high, low + 1_000), self._variant)
                if self._schemas.allows_text(schema, text)
            )
            example = next(found, None)
            self._spend((pattern.steps - before) // 2)
            if example is not None:
                return example
        if self._variant:
            plain = f"{self._variant} {plain}"
        return _at_length(plain, low, high)

    def _json_text(self, schema: dict[str, Any], name: str, depth: int) -> str | None:
        """JSON as text, where that is asked for and fits."""
        if schema.get("contentMediaType") != "application/json" or "contentEncoding" in schema:
            return None
        inner = schema.get("contentSchema", {})
        if self._schemas.height(inner) >= INFINITE:
            return None
        text = json.dumps(self.value(inner, name, depth + 1), ensure_ascii=False)
        self._spend(len(text) // 10)
        return text if self._schemas.allows_text(schema, text) else None

    def _base64(self, schema: Mapping[str, Any]) -> Iterator[str]:
        """Base64 of all numbers of bytes that the lengths may mean."""
        low, high = _limit(schema.get("minLength"), 0), _limit(schema.get("maxLength"), math.inf)
        wholes = {max(1, math.ceil(low / 4)), min(math.ceil(low / 4) + 1, high // 4), high // 4}
        for whole in sorted(each for each in wholes if 0 < each < math.inf):
            for spare in range(3):
                count = 3 * int(whole) - spare
                self._spend(count // 10)
                text = base64_of(count, self._variant)
                is_for_urls = schema.get("format") == "base64url"
                yield text.translate(_FOR_URLS) if is_for_urls else text

    def _candidates(self, schema: Mapping[str, Any], name: str) -> Iterator[str]:
        """Texts to try, the best first; texts of the question are used up."""
        hints = self._hints
        stated = schema.get("format")
        default = schema.get("default")
        example = example_of_format(stated, self._variant)
        has_length = "minLength" in schema or "maxLength" in schema
        in_base64 = self._base64(schema) if stated in _BASE64 and has_length else ()
        if self._variant:
            plain = split_name(name[:100]).strip() or "text"
            yield from _texts(example)
            yield from in_base64
            yield from _texts(f"{plain} {self._variant}")
            return
        said = hints.said_of(name) or hints.in_format(stated, name)
        yield from _texts(said, default, example)
        yield from in_base64
        if example is None and said is None and not isinstance(default, str):
            yield hints.text_for(name)
        yield from strings_in(schema.get("examples"))[:10]
        if schema.get("patterns"):
            for word in islice(words(hints.question[:1_000]), 40):
                yield from (word, word.upper()) if len(word) < 20 else ()
            yield from _COMMON_VALUES


_FOR_URLS = str.maketrans("+/", "-_")
_BASE64 = ("base64", "base64url", "byte")
_COMMON_TEXT = "ABC-123 2026-01-01 12:00 1.0 1.0.0 someone@example.com https://example.com/"
_COMMON_VALUES = _COMMON_TEXT.split()
"""Values that patterns in schemas often ask for, more readable than generated ones."""


def _texts(*candidates: Any) -> Iterable[str]:
    return (text for text in candidates if isinstance(text, str) and text)


def _limit(value: Any, otherwise: Any) -> Any:
    """A length or count of a schema."""
    return max(0, int(value)) if is_number(value) else otherwise


def _at_length(text: str, low: int, high: float) -> str:
    """The text, padded or cut."""
    if len(text) < low:
        text = (text + _PADDING * (low // len(_PADDING) + 1))[:low]
    return text[: int(min(high, len(text)))]


def _nearest(schema: Mapping[str, Any], wished: float, whole: bool, variant: int) -> int | float:
    """The valid number nearest to the wished one, and for a variant one further on."""
    low, high = _lowest(schema, whole), _highest(schema, whole)
    stated = schema.get("multipleOf")
    step = abs(exact(stated)) if is_number(stated) and stated else None
    if whole:
        step = Fraction(step.numerator if step else 1)
    value = exact(wished)
    value = max(value, low) if low is not None else value
    value = min(value, high) if high is not None else value
    if step:
        value = math.ceil(value / step) * step
        if high is not None and value > high:
            value -= step
    narrow = low is not None and high is not None and high - low <= 1
    unit = step or Fraction(1, 100 if narrow else 2)
    value += variant * unit
    if variant and high is not None and low is not None and value > high:
        first = math.ceil(low / unit) * unit if step else low
        value = first + (value - first) % ((high - first) // unit * unit + unit)
    elif variant and high is not None and value > high:
        value -= 2 * variant * unit
    for shift in (0, 1, -1, 2, -2, 3, 5, 10):
        number = _plain(value + shift * unit)
        if allows_number(schema, number) and (not whole or is_whole(number)):
            return number
    return _plain(value)


def _lowest(schema: Mapping[str, Any], whole: bool) -> Fraction | None:
    """The lowest number allowed; above an exclusive bound the nearest that is round."""
    found: list[Fraction] = []
    if is_number(edge := schema.get("minimum")):
        found.append(Fraction(math.ceil(exact(edge))) if whole else exact(edge))
    if is_number(edge := schema.get("exclusiveMinimum")):
        gap = Fraction(1) if whole else _gap(schema)
        found.append((Fraction(math.floor(exact(edge))) if whole else exact(edge)) + gap)
    return max(found, default=None)


def _highest(schema: Mapping[str, Any], whole: bool) -> Fraction | None:
    """The highest number allowed; below an exclusive bound the nearest that is round."""
    found: list[Fraction] = []
    if is_number(edge := schema.get("maximum")):
        found.append(Fraction(math.floor(exact(edge))) if whole else exact(edge))
    if is_number(edge := schema.get("exclusiveMaximum")):
        gap = Fraction(1) if whole else _gap(schema)
        found.append((Fraction(math.ceil(exact(edge))) if whole else exact(edge)) - gap)
    return min(found, default=None)


def _gap(schema: Mapping[str, Any]) -> Fraction:
    """A distance from an exclusive bound that does not reach the other bound."""
    lows = [schema[word] for word in ("minimum", "exclusiveMinimum") if is_number(schema.get(word))]
    highs = [
        schema[word] for word in ("maximum", "exclusiveMaximum") if is_number(schema.get(word))
    ]
    if not lows or not highs:
        return Fraction(1, 2)
    return min(Fraction(1, 2), abs(min(map(exact, highs)) - max(map(exact, lows))) / 3)


def _plain(value: Fraction) -> int | float:
    if value.denominator == 1:
        return value.numerator
    try:
        return float(value)
    except OverflowError:
        return round(value)
