"""pydantic's types by their own schema and reader. Never the first to import pydantic.

A class is recognised by its methods. What has none (a pydantic dataclass, ``EmailStr``, ``Annotated``
with pydantic's validators) goes through ``TypeAdapter``: whoever made it has imported pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from streamchat.protocol.error_body import clean_words
from streamchat.protocol.kinds import (
    EVERY_TYPE,
    Kind,
    Misfit,
    Schema,
    Write,
    is_usable,
    json_type,
    words_of,
)
from streamchat.protocol.plain import is_list, is_mapping

__all__ = ["Foreign", "is_foreign", "is_foreign_metadata", "resolved"]


def is_foreign(kind: Any) -> bool:
    """Whether it is a class that pydantic reads."""
    return isinstance(kind, type) and (
        _is_model(kind)
        or "__pydantic_validator__" in kind.__dict__
        or hasattr(kind, "__get_pydantic_core_schema__")
    )


def _is_model(kind: Any) -> bool:
    return callable(getattr(kind, "model_json_schema", None)) and callable(
        getattr(kind, "model_validate", None)
    )


def is_foreign_metadata(metadata: Any) -> bool:
    """Whether something in ``Annotated`` is there for pydantic."""
    return (
        type(metadata).__module__.partition(".")[0] == "pydantic"
        or hasattr(metadata, "__get_pydantic_core_schema__")
        or hasattr(metadata, "__get_pydantic_json_schema__")
    )


MAX_ERRORS = 10_000
"""Errors that are asked for: each takes 2 us, and pydantic lists all or none."""


class Foreign(Kind):
    """A type that pydantic describes and reads, by its own rules (``ConfigDict(strict=True)`` is one).

    Raises:
        TypeError: pydantic has no JSON Schema for it; the message names the field.
    """

    def __init__(self, kind: Any) -> None:
        self.label = getattr(kind, "__name__", None) or "pydantic"
        self.name = self.label if isinstance(kind, type) else None
        by: Any = kind if _is_model(kind) else _adapter(kind)
        self._read: Callable[[bytes], Any]
        if by is kind:
            # As JSON: strict models read a date from text there.
            from_json: Any = getattr(by, "model_validate_json", None)
            self._read = from_json or (lambda text: by.model_validate(msgspec.json.decode(text)))
            core: Any = getattr(kind, "__pydantic_core_schema__", None)
            self.raw = _schema_of(kind, by.model_json_schema, core)
        else:
            self._read = by.validate_json
            self.raw = _schema_of(kind, by.json_schema, by.core_schema)
        self._names = _property_names(self.raw)
        self.types = _types_of(self.raw, self.raw.get("$defs", {}), {})

    def schema(self, write: Write) -> Schema:
        return self.raw

    def size(self) -> int:
        return 1 + len(str(self.raw)) // 64

    def read(self, value: Any, strict: bool) -> Any:
        try:
            text = msgspec.json.encode(value)
        except (UnicodeError, TypeError, ValueError):
            text = b""
        if not text:
            raise Misfit("text that is not valid Unicode")
        try:
            read = self._read(text)
        except Exception as error:  # noqa: BLE001  # the class is the caller's and may raise anything
            problem = self._misfit(error, value)
        else:
            if not _has_non_finite_text(value) or _is_finite(read):
                return read
            problem = Misfit("a number that is out of range")
        raise problem

    def _misfit(self, error: Exception, value: Any) -> Misfit:
        """The first of pydantic's errors."""
        if type(error).__name__ != "ValidationError" or not hasattr(error, "errors"):
            return Misfit(words_of(error))
        by_pydantic: Any = error
        count: int = by_pydantic.error_count()
        if count > MAX_ERRORS:
            return Misfit(f"{count} values that do not fit")
        problems: list[Mapping[str, Any]] = by_pydantic.errors(
            include_url=False, include_input=False
        )
        first = problems[0]
        context: Mapping[str, Any] = first.get("ctx", {})
        own = context.get("error")
        if isinstance(own, BaseException):
            reason = words_of(own)
        elif first.get("type") == "union_tag_invalid":  # pydantic's words repeat the value
            reason = f"expected one of {context.get('expected_tags', '')}"
        else:
            reason = clean_words(str(first.get("msg", "a value that its class refuses")))
        return Misfit(reason, *self._place(first.get("loc", ()), value))

    def _place(self, location: Sequence[Any], value: Any) -> list[Any]:
        """pydantic's location as a place: names of union members are left out, keys are data."""
        place: list[Any] = []
        for part in location:
            known = isinstance(part, str) and part in self._names
            if is_mapping(value) and part in value:
                place.append(part if known else None)
                value = value[part]
            elif is_list(value) and isinstance(part, int) and 0 <= part < len(value):
                place.append(part)
                value = value[part]
            elif is_mapping(value) and known:
                place.append(part)
                value = None
        return place


def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    reason: str
    try:
        return TypeAdapter(kind)
    except Exception as error:  # noqa: BLE001  # pydantic's own, or that of a hook of the caller's
        reason = _first_line(error)
    raise TypeError(reason)


def _schema_of(kind: Any, say: Callable[[], Schema], core: Any) -> Schema:
    reason: str
    try:
        said = say()
    except Exception as error:  # noqa: BLE001  # pydantic's own, or that of a hook of the caller's
        reason = _first_line(error)
    else:
        deep = _deep_alias(core, kind)
        if deep is not None:
            raise TypeError(deep)
        if not _needs_a_class(core):
            return said
        reason = "JSON has no classes"
    raise TypeError(_unsayable_field(kind) + reason)


def _deep_alias(core: Any, kind: Any) -> str | None:
    """A field that is read from inside of another, which pydantic's schema leaves out."""
    waiting: list[tuple[Any, Any, bool]] = [(core, kind, False)]
    while waiting:
        part, owner, by_name = waiting.pop()
        if is_mapping(part):
            owner = part.get("cls", owner)
            config = part.get("config")
            if is_mapping(config):
                names = ("validate_by_name", "populate_by_name")
                by_name = any(config.get(name) is True for name in names)
            fields = part.get("fields")
            named = [(each.get("name"), each) for each in fields or () if is_mapping(each)]
            for name, field in fields.items() if is_mapping(fields) else named:
                if not by_name and is_mapping(field) and _is_deep(field.get("validation_alias")):
                    label = name if owner is kind else f"{_label(owner)}.{name}"
                    return f"{label}: its validation_alias is a path, which a schema cannot say"
            waiting += [(each, owner, by_name) for each in part.values()]
        elif is_list(part):
            waiting += [(each, owner, by_name) for each in part]
    return None


def _is_deep(alias: Any) -> bool:
    """Whether no key of the object itself is among the places that a field is read from."""
    if not is_list(alias) or not alias:
        return False
    paths = alias if is_list(alias[0]) else [alias]
    return all(len(path) != 1 for path in paths)


def _label(cls: Any) -> str:
    return str(getattr(cls, "__name__", "pydantic"))


def _needs_a_class(core: Any) -> bool:
    """Whether a core schema holds ``type[...]``, which has a JSON Schema but fits no JSON."""
    return any(
        is_mapping(part) and part.get("type") == "is-subclass" for part in _parts(core, "default")
    )


def _parts(value: Any, left_out: str | None = None) -> Iterator[Any]:
    """Plain data and all that it holds, in no order; what stands at the key ``left_out`` is skipped."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        yield part
        if is_mapping(part):
            waiting += part.values() if left_out is None else _without(part, left_out)
        elif is_list(part):
            waiting += part


def _without(part: Mapping[str, Any], left_out: str) -> Iterator[Any]:
    return (item for key, item in part.items() if key != left_out)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _unsayable_field(kind: Any) -> str:
    """Which field of a model has no schema, with a colon; empty if no single one can be named."""
    fields: Any = getattr(kind, "model_fields", None)
    if not is_mapping(fields):
        return ""
    for name, field in fields.items():
        annotation: Any = getattr(field, "annotation", None)
        try:
            adapter = _adapter(annotation)
            adapter.json_schema()
        except Exception:  # noqa: BLE001  # only which one matters
            return f"{name}: "
        if _needs_a_class(adapter.core_schema):
            return f"{name}: "
    return ""


def resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Schema:
    """A schema without a reference at its top."""
    found = dict(schema)
    for _ in range(32):
        reference = found.pop("$ref", None)
        if not isinstance(reference, str):
            break
        name = reference.removeprefix("#/$defs/")
        found = {**root.get("$defs", {}).get(name, {}), **found}
    return found


def _types_of(
    schema: Any, definitions: Mapping[str, Any], known: dict[str, frozenset[str]]
) -> frozenset[str]:
    """The JSON types of what fits a schema; every type if it says nothing of them."""
    if schema is False:
        return frozenset()
    if not is_mapping(schema):
        return EVERY_TYPE
    found = EVERY_TYPE
    reference = schema.get("$ref")
    if isinstance(reference, str):
        if reference not in known:
            known[reference] = frozenset()  # inside itself it adds nothing
            inner = definitions.get(reference.removeprefix("#/$defs/"))
            known[reference] = _types_of(inner, definitions, known)
        found &= known[reference]
    said = schema.get("type")
    names = {said} if isinstance(said, str) else set(said) if is_list(said) else set[str]()
    if names and names <= EVERY_TYPE:
        found &= names | ({"integer"} if "number" in names else set[str]())
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if is_list(values):
        found &= frozenset(map(json_type, values))
    for word in ("anyOf", "oneOf"):
        if is_list(schema.get(word)):
            found &= frozenset[str]().union(
                *(_types_of(part, definitions, known) for part in schema[word])
            )
    for part in schema["allOf"] if is_list(schema.get("allOf")) else ():
        found &= _types_of(part, definitions, known)
    return found


def _property_names(schema: Any) -> frozenset[str]:
    return frozenset(
        name
        for part in _parts(schema)
        if is_mapping(part) and is_mapping(properties := part.get("properties"))
        for name in properties
    )


# --- non-finite numbers --------------------------------------------------------------------------

_NON_FINITE = re.compile(
    r"\s*[+-]?(?:s?nan\d*|inf(?:inity)?|[0-9._]+e\+?[0-9_]{3,})\s*", re.IGNORECASE
)


def _has_non_finite_text(value: Any) -> bool:
    """Whether plain data contains text that pydantic would read as NaN, infinity or a huge number."""
    return any(
        isinstance(part, str) and len(part) < 64 and _NON_FINITE.fullmatch(part) is not None
        for part in _parts(value)
    )


def _is_finite(value: Any) -> bool:
    """Whether all numbers that came from the data are finite; defaults are not checked."""
    waiting, seen = [value], set[int]()
    while waiting:
        part = waiting.pop()
        if isinstance(part, float | Decimal):
            if not is_usable(part):
                return False
        elif isinstance(part, str | bytes | int) or part is None or id(part) in seen:
            continue
        else:
            seen.add(id(part))
            if is_mapping(part):
                waiting += part.values()
            elif isinstance(part, list | tuple | set | frozenset):
                waiting += part
            elif hasattr(part, "__dict__"):
                given: Any = getattr(part, "model_fields_set", None)
                own: Mapping[str, Any] = part.__dict__
                waiting += [own[name] for name in own if given is None or name in given]
    return True
