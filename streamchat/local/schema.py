"""Filling a JSON Schema from a question: tool arguments and JSON answers. Imports ``hints``.

What is filled in validates as far as JSON Schema's common words go: ``type`` (also as a list, and
the old names ``str``, ``int``, ...), ``properties``, ``required``, ``items``, ``prefixItems``,
``enum``, ``const``, ``default``, ``format``, ``pattern`` (by trying what is at hand), the length
and range words, ``uniqueItems``, ``anyOf``, ``oneOf``, ``allOf``, ``$ref`` into the schema itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from streamchat.local.hints import Hints
from streamchat.local.shapes import list_or_empty, object_or_empty, strings_in
from streamchat.local.words import split_name, words

__all__ = ["fill", "kind_of", "resolve"]

MAX_DEPTH = 8
"""Nesting beyond which only what is required is filled, so that a recursive schema ends."""
MAX_ITEMS = 1_000
"""Items of one array."""
MAX_TEXT = 10_000
"""Code points that ``minLength`` may ask for."""

_ALIASES = {
    "str": "string",
    "text": "string",
    "int": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "list": "array",
    "tuple": "array",
    "dict": "object",
    "map": "object",
}


def fill(schema: Mapping[str, Any], hints: Hints, *, everything: bool = False) -> Any:
    """A value for the schema.

    Args:
        schema: the whole schema; ``$ref`` is looked up in it.
        hints: used up on the way.
        everything: optional properties too, not only those that the question determines.
    """
    return _Filler(schema, hints, everything).value(schema, "", 0)


# --- reading a schema ----------------------------------------------------------------------------


def resolve(schema: Any, root: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without ``$ref`` and ``allOf`` at its top; ``True`` and nonsense are ``{}``."""
    found = dict(object_or_empty(schema))
    for _ in range(32):  # a reference to itself ends here
        reference = found.pop("$ref", None)
        if not isinstance(reference, str):
            break
        found = _merged(_look_up(reference, root), found)
    for part in list_or_empty(found.pop("allOf", None)):
        found = _merged(found, resolve(part, root))
    return found


def _look_up(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a JSON pointer such as ``#/$defs/Item`` names."""
    target: Any = root
    for key in reference.removeprefix("#").strip("/").split("/"):
        if key:
            target = object_or_empty(target).get(key.replace("~1", "/").replace("~0", "~"))
    return object_or_empty(target)


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both schemas at once; the second has the last word, but properties add up."""
    both = {**first, **second}
    if "properties" in first and "properties" in second:
        both["properties"] = {
            **object_or_empty(first["properties"]),
            **object_or_empty(second["properties"]),
        }
    if "required" in first and "required" in second:
        both["required"] = [*strings_in(first["required"]), *strings_in(second["required"])]
    return both


def kind_of(schema: Mapping[str, Any]) -> str:
    """The JSON type that a resolved schema asks for; ``string`` where it does not say."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((item for item in strings_in(kind) if item != "null"), "null")
    if isinstance(kind, str):
        return _ALIASES.get(kind.casefold(), kind.casefold())
    if "properties" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "number" if "minimum" in schema or "maximum" in schema else "string"


def _number_in(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any, otherwise: int) -> int:
    number = _number_in(value)
    return otherwise if number is None else int(number)


def _bounds(schema: Mapping[str, Any], step: float) -> tuple[float, float]:
    """Lowest and highest number allowed; exclusive bounds move by one step."""
    low = [_number_in(schema.get("minimum")), _number_in(schema.get("exclusiveMinimum"))]
    high = [_number_in(schema.get("maximum")), _number_in(schema.get("exclusiveMaximum"))]
    lows = [bound + step * place for place, bound in enumerate(low) if bound is not None]
    highs = [bound - step * place for place, bound in enumerate(high) if bound is not None]
    return max(lows, default=-1e15), min(highs, default=1e15)


def _complexity(schema: Mapping[str, Any]) -> int:
    return {"null": 0, "object": 3, "array": 2}.get(kind_of(schema), 1)


# --- filling it ----------------------------------------------------------------------------------


class _Filler:
    """One schema and one question; hints are used up from the first property to the last."""

    def __init__(self, root: Mapping[str, Any], hints: Hints, everything: bool) -> None:
        self._root = root
        self._hints = hints
        self._everything = everything

    def value(self, unresolved: Any, name: str, depth: int) -> Any:
        """A value for a part of the schema, which stands under ``name``."""
        schema = resolve(unresolved, self._root)
        if "const" in schema:
            return schema["const"]
        if list_or_empty(schema.get("enum")):
            return self._choice(schema)
        for word in ("anyOf", "oneOf"):
            options = list_or_empty(schema.pop(word, None))
            if options:
                return self.value(_merged(schema, self._option(options, depth)), name, depth)
        match kind_of(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer" | "number" as kind:
                return self._number(schema, name, whole=kind == "integer")
            case "boolean":
                return self._truth(schema, name)
            case "null":
                return None
            case _:
                return self._text(schema, name)

    def _choice(self, schema: Mapping[str, Any]) -> Any:
        """The value of an enum that the question says, else the default, else the first."""
        options = list_or_empty(schema["enum"])
        default = schema.get("default")
        otherwise = default if default in options else options[0]
        return next((option for option in options if self._hints.mentions(option)), otherwise)

    def _option(self, options: list[Any], depth: int) -> dict[str, Any]:
        """The first that is not null; deep down, the simplest."""
        found = [resolve(option, self._root) for option in options]
        if depth >= MAX_DEPTH:
            return min(found, key=_complexity)
        return next((option for option in found if option.get("type") != "null"), found[0])

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        known = object_or_empty(schema.get("properties"))
        required = strings_in(schema.get("required"))
        filled = {
            name: self.value(known.get(name), name, depth + 1)
            for name in [*known, *(name for name in required if name not in known)]
            if name in required
            or (self._everything and depth < MAX_DEPTH // 2)
            or self._is_determined(resolve(known.get(name), self._root), name)
        }
        extra = schema.get("additionalProperties")
        while extra is not False and len(filled) < min(_whole(schema.get("minProperties"), 0), 100):
            name = f"key_{len(filled)}"
            filled[name] = self.value(extra, name, depth + 1)
        return filled

    def _is_determined(self, schema: Mapping[str, Any], name: str) -> bool:
        """Whether the question says something for this optional property."""
        if "enum" in schema:
            return any(self._hints.mentions(option) for option in list_or_empty(schema["enum"]))
        match kind_of(schema):
            case "integer" | "number":
                return self._hints.number_beside(name) is not None
            case "boolean":
                return self._hints.mentions(name)
            case "string":
                return self._hints.said_of(name) is not None or (
                    self._hints.in_format(schema.get("format"), name) is not None
                )
            case _:
                return False

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        high = min(_whole(schema.get("maxItems"), MAX_ITEMS), MAX_ITEMS)
        low = min(_whole(schema.get("minItems"), 0), high)
        filled = [
            self.value(item, name, depth + 1)
            for item in list_or_empty(schema.get("prefixItems"))[:high]
        ]
        if schema.get("items") is not False:
            items = resolve(schema.get("items"), self._root)
            wanted = 0 if depth >= MAX_DEPTH else self._count(items) - len(filled)
            more = max(low - len(filled), min(wanted, high))
            filled += [self.value(items, name.removesuffix("s"), depth + 1) for _ in range(more)]
        return _made_unique(filled) if schema.get("uniqueItems") is True else filled

    def _count(self, items: Mapping[str, Any]) -> int:
        """How many things of this kind the question names; at least one."""
        hints = self._hints
        if "enum" in items:
            return max(1, sum(hints.mentions(option) for option in list_or_empty(items["enum"])))
        match kind_of(items):
            case "integer" | "number":
                return max(1, len(hints.numbers))
            case "string":
                return max(1, len(hints.quoted or hints.names) or min(len(hints.rest), 3))
            case _:
                return 1

    def _number(self, schema: Mapping[str, Any], name: str, *, whole: bool) -> int | float:
        hints = self._hints
        given = hints.number_beside(name) if "default" in schema else hints.number_for(name)
        fallbacks = (given, _number_in(schema.get("default")), _number_in(schema.get("minimum")))
        value = next((number for number in fallbacks if number is not None), 1)
        step = _number_in(schema.get("multipleOf")) or 0
        low, high = _bounds(schema, step or (1 if whole else 0.5))
        value = min(max(value, low), high)
        if step > 0:
            value = -(-value // step) * step
            value = value - step if value > high else value
        return round(value) if whole or float(value).is_integer() else value

    def _truth(self, schema: Mapping[str, Any], name: str) -> bool:
        if self._hints.mentions(name):
            return not self._hints.denies(name)
        default = schema.get("default")
        return default if isinstance(default, bool) else True

    def _text(self, schema: Mapping[str, Any], name: str) -> str:
        hints = self._hints
        text = hints.said_of(name) or hints.in_format(schema.get("format"), name)
        if text is None and isinstance(schema.get("default"), str):
            text = str(schema["default"])
        if text is None:
            text = hints.example_of(schema.get("format")) or hints.text_for(name)
        pattern = schema.get("pattern")
        if isinstance(pattern, str):
            text = self._matching(pattern, [text, *strings_in(schema.get("examples"))], name)
        low = min(_whole(schema.get("minLength"), 0), MAX_TEXT)
        if len(text) < low:
            text = f"{text} text".strip().ljust(low, ".")
        return text[: _whole(schema.get("maxLength"), len(text))]

    def _matching(self, pattern: str, candidates: list[str], name: str) -> str:
        """The first thing at hand that the pattern accepts; if nothing is, the first thing."""
        try:
            accepts = re.compile(pattern)
        except re.error:
            return candidates[0]
        question = self._hints.question[:1_000]
        tried = [*candidates, *words(question), *_COMMON_VALUES, split_name(name)]
        tried += [form for text in tried for form in (text.lower(), text.upper(), text[:3].upper())]
        inside = accepts.search(question)
        tried += [inside.group()] if inside else []
        return next((text for text in tried if accepts.search(text)), candidates[0])


_COMMON_TEXT = """a A AB ABC ABCD ABC-123 AB-1234 0 00 000 0000 00000 00:00 2026-01-01 v1 1.0 1.0.0
    #000000 abc a-b a_b +10000000000 someone@example.com https://example.com/"""
_COMMON_VALUES = _COMMON_TEXT.split()
"""What patterns in schemas most often ask for."""


def _made_unique(values: list[Any]) -> list[Any]:
    """The values, later ones changed until none comes twice; what cannot change is dropped."""
    seen: set[str] = set()
    kept: list[Any] = []
    for value in values:
        while json.dumps(value, sort_keys=True) in seen and isinstance(value, str | int | float):
            value = f"{value} {len(kept) + 1}" if isinstance(value, str) else value + 1
        if json.dumps(value, sort_keys=True) not in seen:
            seen.add(json.dumps(value, sort_keys=True))
            kept.append(value)
    return kept
