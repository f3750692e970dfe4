"""Reading a JSON Schema in bounded time: references, conjunctions, validity, finite depth.

Understood are the validation words of JSON Schema 2020-12 that tool and answer schemas use, and the
old type names ``str``, ``int``, ...; annotations and unknown words are kept and ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, TypeGuard

import attrs

from streamchat.local.checks import RefusalError
from streamchat.local.formats import fits_format
from streamchat.local.pattern import Pattern, UnsupportedPatternError
from streamchat.local.shapes import characters, list_or_empty, object_or_empty, strings_in

__all__ = [
    "INFINITE",
    "Schemas",
    "Work",
    "allows_number",
    "exact",
    "is_number",
    "is_whole",
    "key_of",
    "kinds_of",
]

MAX_WORK = 300_000
"""Work that the schemas of one request may take: about microseconds."""
MAX_HEIGHT = 64
"""Levels of nesting that a value may need."""
INFINITE = MAX_HEIGHT + 1

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
_KINDS = ("string", "integer", "number", "boolean", "array", "object", "null")


@attrs.define
class Work:
    """What the schemas of one request have cost; shared by all of them."""

    left: int = MAX_WORK

    def spend(self, amount: int) -> None:
        """Charge about ``amount`` microseconds.

        Raises:
            RefusalError: 400 if that is more than is left.
        """
        self.left -= amount
        if self.left < 0:
            raise RefusalError(
                400,
                "invalid request: the JSON schema asks for too much: too many or too long values, "
                "or too many alternatives.",
            )


# --- types ---------------------------------------------------------------------------------------


def is_whole(value: Any) -> bool:
    """Whether it is a number without a fraction: JSON Schema's ``integer``."""
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a JSON number; ``bool`` is an ``int`` only in Python."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> int | float | None:
    return value if is_number(value) else None


def kinds_of(schema: Mapping[str, Any]) -> list[str]:
    """The JSON types that a resolved schema allows, the likeliest first; never empty."""
    stated = schema.get("type")
    names = [stated] if isinstance(stated, str) else strings_in(stated)
    kinds = [_ALIASES.get(name.casefold(), name.casefold()) for name in names]
    kinds = [kind for kind in kinds if kind in _KINDS]
    if kinds:
        return sorted(kinds, key=lambda kind: kind == "null")
    if "properties" in schema or "required" in schema or "additionalProperties" in schema:
        return ["object"]
    if "items" in schema or "prefixItems" in schema or "minItems" in schema:
        return ["array"]
    bounds = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
    return ["number" if any(bound in schema for bound in bounds) else "string"]


def _has_type(value: Any, kind: str) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "integer":
            return is_whole(value)
        case "number":
            return _number(value) is not None
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, Mapping)
        case _:
            return value is None


def same(first: Any, second: Any) -> bool:
    """JSON equality: ``1`` equals ``1.0`` and not ``true``."""
    return key_of(first) == key_of(second)


def key_of(value: Any) -> str:
    """A text that is the same for equal JSON values."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, default=str)


# --- conjunctions --------------------------------------------------------------------------------


def _stricter(choose: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    def both(first: Any, second: Any) -> Any:
        if _number(first) is None or _number(second) is None:
            return second
        return choose(first, second)

    return both


def _common_types(first: Any, second: Any) -> Any:
    left, right = ({"type": stated} for stated in (first, second))
    wide, narrow = kinds_of(left), kinds_of(right)
    common = [kind for kind in wide if kind in narrow or (kind == "integer" and "number" in narrow)]
    common += [
        kind for kind in narrow if kind == "integer" and "number" in wide and kind not in wide
    ]
    return common or second


def _common_values(first: Any, second: Any) -> Any:
    known = {key_of(value) for value in list_or_empty(second)}
    return [value for value in list_or_empty(first) if key_of(value) in known] or second


def _both_schemas(first: Any, second: Any) -> Any:
    if first is False or second is False:
        return False
    return {"allOf": [first, second]}


def _common_multiple(first: Any, second: Any) -> Any:
    if not (_number(first) and _number(second)):
        return second
    left, right = exact(first), exact(second)
    common = Fraction(math.lcm(left.numerator, right.numerator))
    common /= math.gcd(left.denominator, right.denominator)
    return int(common) if common.denominator == 1 else float(common)


_HIGHEST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains")
_LOWEST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains")
_CONJUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "type": _common_types,
    "enum": _common_values,
    "items": _both_schemas,
    "additionalProperties": _both_schemas,
    "propertyNames": _both_schemas,
    "contains": _both_schemas,
    "multipleOf": _common_multiple,
    "uniqueItems": lambda first, second: first is True or second is True,
    **dict.fromkeys(_HIGHEST, _stricter(max)),
    **dict.fromkeys(_LOWEST, _stricter(min)),
}
"""How two values of a word become one; for other words the later value stands."""
_LISTED = {"anyOf": "choices", "oneOf": "choices", "pattern": "patterns", "not": "not"}
"""Words of which several may hold at once, and the list that :meth:`Schemas.resolve` puts them in.

``choices`` has pairs: the options, and whether exactly one of them must hold.
"""


def _add(into: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Make a resolved schema demand what another schema demands too."""
    for word, value in part.items():
        if word in ("$ref", "allOf", "$defs", "definitions"):
            continue
        if word in _LISTED:
            options = list_or_empty(value)
            if word in ("anyOf", "oneOf"):
                if options:
                    into.setdefault("choices", []).append((options, word == "oneOf"))
            elif word == "not" or isinstance(value, str):
                into.setdefault(_LISTED[word], []).append(value)
        elif word == "properties":
            known = into.setdefault(word, {})
            for name, schema in object_or_empty(value).items():
                known[name] = _both_schemas(known[name], schema) if name in known else schema
        elif word == "required":
            names = strings_in(value) or list(object_or_empty(value))  # a dict once resolved
            into.setdefault(word, {}).update(dict.fromkeys(names))
        elif word in _CONJUNCTIONS and word in into:
            into[word] = _CONJUNCTIONS[word](into[word], value)
        else:
            into[word] = value


# --- a schema and all that it refers to ----------------------------------------------------------


class Schemas:
    """A schema with the definitions in it.

    Args:
        root: the whole schema; ``$ref`` is looked up in it.
        work: what reading it is charged to.
    """

    def __init__(self, root: Mapping[str, Any], work: Work) -> None:
        self.root = root
        self.work = work
        self._resolved: dict[int, tuple[Any, dict[str, Any]]] = {}
        self._fits: dict[tuple[int, int], bool] = {}
        self._fitting: set[tuple[int, int]] = set()
        self._circular = False
        self._patterns: dict[str, Pattern | None] = {}

    def resolve(self, schema: Any) -> dict[str, Any]:
        """The schema without ``$ref`` and ``allOf``; ``True`` and nonsense are ``{}``.

        ``anyOf``, ``oneOf``, ``pattern`` and ``not`` become lists, ``required`` a dict of names.
        The result is shared: do not change it.
        """
        known = self._resolved.get(id(schema))
        if known is not None and known[0] is schema:
            return known[1]
        found: dict[str, Any] = {}
        waiting = [schema]
        seen: set[str] = set()
        while waiting:
            part = waiting.pop()
            if part is False:
                found["never"] = True
            part = object_or_empty(part)
            self.work.spend(2 + len(part) + sum(map(_breadth, part.values())))
            # A reference goes before the words beside it and these before the parts of allOf, so
            # that the later description or default stands. Each reference is followed once.
            waiting += reversed(list_or_empty(part.get("allOf")))
            reference = part.get("$ref")
            if isinstance(reference, str) and reference not in seen:
                seen.add(reference)
                beside = {
                    word: value for word, value in part.items() if word not in ("$ref", "allOf")
                }
                waiting += [beside, self._look_up(reference)]
            else:
                _add(found, part)
        self._resolved[id(schema)] = (schema, found)
        return found

    def _look_up(self, reference: str) -> Mapping[str, Any]:
        """The schema that a JSON pointer such as ``#/$defs/Item`` points to."""
        target: Any = self.root
        for key in reference[:1_000].removeprefix("#").strip("/").split("/"):
            name = key.replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and name.isascii() and name.isdigit():
                items = list_or_empty(target)
                target = items[int(name)] if len(name) < 9 and int(name) < len(items) else {}
            elif name:
                target = object_or_empty(target).get(name)
        return object_or_empty(target)

    def narrowed(self, schema: Mapping[str, Any], option: Any) -> dict[str, Any]:
        """A resolved schema that demands what an option demands too; its own choices are left."""
        self.work.spend(5)
        found = dict(schema)
        for word in ("properties", "required"):  # these are added to in place
            if word in found:
                found[word] = dict(found[word])
                self.work.spend(len(found[word]))
        for word in ("choices", "patterns", "not"):
            if word in found:
                found[word] = list(found[word])
        resolved = self.resolve(option)
        _add(found, {word: value for word, value in resolved.items() if word not in _ONCE})
        for word in _ONCE:
            if word in resolved:
                found[word] = found.get(word, []) + resolved[word]
        return found

    def pattern(self, source: str) -> Pattern | None:
        """The pattern, ready for use; None if it is not supported."""
        if source not in self._patterns:
            self.work.spend(len(source))
            try:
                self._patterns[source] = Pattern(source)
            except UnsupportedPatternError:
                self._patterns[source] = None
        return self._patterns[source]

    # --- depth ---

    def height(self, schema: Any) -> int:
        """How many levels of nesting a value needs at least; ``INFINITE`` if it never ends."""
        for levels in range(INFINITE):
            if self._fits_in(schema, levels):
                return levels
            if levels > len(self._resolved):  # a path without a repetition is not longer
                break
        return INFINITE

    def _fits_in(self, schema: Any, levels: int) -> bool:
        key = (id(schema), levels)
        known = self._fits.get(key)
        if known is None:
            if key in self._fitting:  # a choice that leads to itself adds nothing
                self._circular = True
                return False
            self._fitting.add(key)
            known = self._resolved_fits_in(self.resolve(schema), levels)
            self._fitting.discard(key)
            if not self._fitting:
                self._circular = False
            if known or not self._circular:
                self._fits[key] = known
        return known

    def _resolved_fits_in(self, schema: Mapping[str, Any], levels: int) -> bool:
        self.work.spend(2)
        if "const" in schema or "enum" in schema:
            return True
        for options, _ in schema.get("choices", ()):
            if not any(self._fits_in(option, levels) for option in options):
                return False
        kinds = kinds_of(schema)
        if not {"object", "array"}.issuperset(kinds):
            return True
        if kinds[0] == "array":
            if not (_number(schema.get("minItems")) or 0) > 0:
                return True
            parts = [*list_or_empty(schema.get("prefixItems")), schema.get("items")]
        else:
            known = object_or_empty(schema.get("properties"))
            parts = [known.get(name) for name in schema.get("required", ())]
            if (_number(schema.get("minProperties")) or 0) > len(parts):
                parts.append(schema.get("additionalProperties"))
        demanding = [part for part in parts if object_or_empty(part)]
        return not demanding or (
            levels > 0 and all(self._fits_in(part, levels - 1) for part in demanding)
        )

    # --- validity ---

    def accepts(self, schema: Any, value: Any, depth: int = 0) -> bool:
        """Whether the value is valid, as far as the words that are understood go."""
        return self.allows(self.resolve(schema), value, depth)

    def allows(self, schema: Mapping[str, Any], value: Any, depth: int = 0) -> bool:
        """The same for a resolved schema."""
        self.work.spend(5)
        if depth > 2 * MAX_HEIGHT or schema.get("never"):
            return False
        if "const" in schema and not same(schema["const"], value):
            return False
        if "enum" in schema and not self.lists(schema["enum"], value):
            return False
        if "type" in schema and not any(_has_type(value, kind) for kind in kinds_of(schema)):
            return False
        for options, exactly in schema.get("choices", ()):
            valid = (True for option in options if self.accepts(option, value, depth + 1))
            if not next(valid, False) or (exactly and next(valid, False)):
                return False
        if any(self.accepts(other, value, depth + 1) for other in schema.get("not", ())):
            return False
        if isinstance(value, str):
            return self.allows_text(schema, value)
        if isinstance(value, Mapping):
            return self._allows_object(schema, object_or_empty(value), depth)
        if isinstance(value, list):
            return self._allows_array(schema, list_or_empty(value), depth)
        return _number(value) is None or allows_number(schema, value)

    def lists(self, options: Any, value: Any) -> bool:
        """Whether the value is one of an enum's."""
        options = list_or_empty(options)
        self.work.spend(len(options))
        return any(option == value and same(option, value) for option in options)

    def allows_text(self, schema: Mapping[str, Any], text: str) -> bool:
        """Whether length, format and patterns allow the text."""
        self.work.spend(2 + len(text) // 100)
        if not _has_size(schema, "Length", len(text)):
            return False
        if not fits_format(schema.get("format"), text):
            return False
        for source in schema.get("patterns", ()):
            pattern = self.pattern(source)
            if pattern is None:
                continue
            before = pattern.steps
            accepted = pattern.accepts(text)
            self.work.spend((pattern.steps - before) // 2)
            if not accepted:
                return False
        return True

    def _allows_object(
        self, schema: Mapping[str, Any], value: Mapping[str, Any], depth: int
    ) -> bool:
        known = object_or_empty(schema.get("properties"))
        if any(name not in value for name in schema.get("required", ())):
            return False
        if not _has_size(schema, "Properties", len(value)):
            return False
        patterned = object_or_empty(schema.get("patternProperties"))
        for name, item in value.items():
            parts = [known[name]] if name in known else []
            for source, part in patterned.items():
                pattern = self.pattern(source)
                if pattern is not None and pattern.accepts(name):
                    parts.append(part)
            if not parts and "additionalProperties" in schema:
                parts.append(schema["additionalProperties"])
            if "propertyNames" in schema and not self.accepts(
                schema["propertyNames"], name, depth + 1
            ):
                return False
            if not all(self.accepts(part, item, depth + 1) for part in parts):
                return False
        return True

    def _allows_array(self, schema: Mapping[str, Any], value: list[Any], depth: int) -> bool:
        if not _has_size(schema, "Items", len(value)):
            return False
        first = list_or_empty(schema.get("prefixItems"))
        for position, item in enumerate(value):
            part = first[position] if position < len(first) else schema.get("items", True)
            if not self.accepts(part, item, depth + 1):
                return False
        self.work.spend(len(value))
        return schema.get("uniqueItems") is not True or len({*map(key_of, value)}) == len(value)

    # --- output ---

    def charge_copy(self, value: Any) -> None:
        """Charge for a value that is copied from the schema into the answer."""
        self.work.spend(5 + characters(value))


def _has_size(schema: Mapping[str, Any], word: str, size: int) -> bool:
    low, high = _number(schema.get(f"min{word}")), _number(schema.get(f"max{word}"))
    return (low is None or size >= low) and (high is None or size <= high)


def allows_number(schema: Mapping[str, Any], value: float) -> bool:
    """Whether bounds and ``multipleOf`` allow the number."""
    low, high = _number(schema.get("minimum")), _number(schema.get("maximum"))
    above, below = (_number(schema.get(f"exclusive{side}")) for side in ("Minimum", "Maximum"))
    if (low is not None and value < low) or (high is not None and value > high):
        return False
    if (above is not None and value <= above) or (below is not None and value >= below):
        return False
    step = _number(schema.get("multipleOf"))
    return not step or is_multiple(value, step)


def exact(value: float) -> Fraction:
    """The number that was written: of a float its shortest decimal form."""
    return Fraction(value) if isinstance(value, int) else Fraction(str(value))


def is_multiple(value: float, step: float) -> bool:
    """Whether it is one exactly, and also by the division of floats, as validators do it."""
    if exact(value) % exact(step):
        return False
    if isinstance(step, int):
        return True
    try:
        quotient = value / step
    except OverflowError:
        return False
    return math.isfinite(quotient) and quotient.is_integer()


def _breadth(value: Any) -> int:
    return len(object_or_empty(value) or list_or_empty(value))


_ONCE = ("choices", "patterns", "not")
