"""JSON Schema for functions and answers, and the reading of arguments and answers by the same kinds.

What a schema promises is what is read: the JSON types, attrs and dataclasses, ``TypedDict``,
``NamedTuple``, ``msgspec.Struct``, pydantic's classes, enums, ``Literal``, unions, dates, ``UUID``,
``Decimal``, and containers of these. :mod:`streamchat.protocol.annotations` has the list.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Optional

import attrs

from streamchat.protocol.annotations import Reading
from streamchat.protocol.callables import (
    accepts,
    annotations_of,
    docstring_of,
    inside_partial,
    read_docstring,
    signature_of,
)
from streamchat.protocol.foreign import Foreign, resolved
from streamchat.protocol.kinds import (
    Alias,
    Field,
    Kind,
    Misfit,
    Noted,
    Record,
    Schema,
    read_value,
)
from streamchat.protocol.plain import is_list, is_mapping
from streamchat.protocol.values import plain_value

__all__ = ["Answer", "Parameters", "answer_of", "object_schema", "plain_value"]

MAX_WRITTEN_OUT = 200
"""Subschemas up to which a class that occurs twice is written out twice: models read it better so.
Beyond, each class is one definition, and the schema grows with the number of classes."""


# --- kinds to schemas ----------------------------------------------------------------------------


class _Definitions:
    """Which kinds become definitions, and the definitions themselves."""

    def __init__(self, root: Kind) -> None:
        self._uses: dict[int, int] = {}
        self._kinds: dict[int, Kind] = {}
        self._names: dict[int, str] = {}
        self._sizes: dict[int, int] = {}
        # Definitions that pydantic wrote, by our name: theirs, and the schema.
        self._theirs: dict[str, tuple[str, Schema]] = {}
        self.schemas: dict[str, Schema] = {}
        self._recursive: set[int] = set()
        self._look_at(root)
        total = self._size(root)
        self._shares = total > MAX_WRITTEN_OUT

    def _look_at(self, root: Kind) -> None:
        """Count the uses of each kind, and find those that hold themselves."""
        on_the_way: set[int] = set()

        def visit(kind: Kind) -> None:
            key = id(kind)
            self._uses[key] = self._uses.get(key, 0) + 1
            if key in on_the_way:
                self._recursive.add(key)
                return
            if key in self._kinds:
                return
            self._kinds[key] = kind
            on_the_way.add(key)
            for part in kind.parts():
                visit(part)
            on_the_way.discard(key)

        visit(root)

    def _size(self, kind: Kind) -> int:
        """Subschemas, with everything written out; a kind that holds itself is a reference."""
        key = id(kind)
        known = self._sizes.get(key)
        if known is None:
            self._sizes[key] = 1  # inside itself
            known = kind.size() + sum(self._size(part) for part in kind.parts())
            self._sizes[key] = known
        return known

    def write(self, kind: Kind) -> Schema:
        """The schema of a kind, or a reference to its definition."""
        key = id(kind)
        if kind.name is None or not (
            key in self._recursive or (self._shares and self._uses[key] > 1)
        ):
            return self.in_place(kind)
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = self._free(re.sub(r"\W+", "_", kind.name).strip("_"))
            self.schemas[name] = {}
            self.schemas[name] = self.in_place(kind)
        return {"$ref": f"#/$defs/{name}"}

    def in_place(self, kind: Kind) -> Schema:
        """The schema of a kind, whatever its uses."""
        return self._adopted(kind.raw) if isinstance(kind, Foreign) else kind.schema(self.write)

    def _free(self, name: str) -> str:
        return next(
            each
            for each in (name, *(f"{name}_{number}" for number in range(2, len(self.schemas) + 3)))
            if each not in self.schemas
        )

    def _adopted(self, raw: Schema) -> Schema:
        """A schema that pydantic wrote, its definitions among ours."""
        theirs: Schema = raw.get("$defs", {})
        names: dict[str, str] = {}
        for name, schema in theirs.items():
            same = [own for own, known in self._theirs.items() if known == (name, schema)]
            names[name] = same[0] if same else self._free(name)
            self.schemas.setdefault(names[name], {})
            self._theirs[names[name]] = (name, schema)

        def renamed(part: Any) -> Any:
            if is_mapping(part):
                return {key: renamed(item) for key, item in part.items()}
            if is_list(part):
                return [renamed(item) for item in part]
            if isinstance(part, str) and part.startswith("#/$defs/"):
                return f"#/$defs/{names.get(part[8:], part[8:])}"
            return part

        for name, schema in theirs.items():
            if not self.schemas[names[name]]:
                self.schemas[names[name]] = renamed(schema)
        whole: Schema = renamed({key: item for key, item in raw.items() if key != "$defs"})
        return whole


def _kind_of(what: str, name: str, annotation: Any, reading: Reading, scope: Any) -> Kind:
    """The kind of an annotation.

    Raises:
        TypeError: JSON cannot hold it.
    """
    try:
        return reading.field(name, annotation, scope)
    except RecursionError:
        pass
    raise TypeError(
        f"{what} has a type that JSON Schema cannot describe: {name}: nested too deeply"
    )


def _schema(kind: Kind) -> Schema:
    """The whole schema of a kind, its definitions inside."""
    definitions = _Definitions(kind)
    whole = definitions.in_place(kind)
    if "$ref" in whole:
        whole = resolved(whole, {"$defs": definitions.schemas})
    return {**whole, "$defs": definitions.schemas} if definitions.schemas else whole


def _requiring_something(schema: Any) -> Any:
    """The schema with something ``required`` in each object that has properties."""
    if is_list(schema):
        return [_requiring_something(part) for part in schema]
    if not is_mapping(schema):
        return schema
    whole: Schema = {}
    for key, item in schema.items():
        if key in ("properties", "$defs") and is_mapping(item):
            whole[key] = {name: _requiring_something(part) for name, part in item.items()}
        elif key in _SUBSCHEMAS:
            whole[key] = _requiring_something(item)
        else:  # data, such as a default
            whole[key] = item
    if whole.get("properties") and not whole.get("required"):
        whole["required"] = list(whole["properties"])
    return whole


_SUBSCHEMAS = {"anyOf", "oneOf", "allOf", "prefixItems", "items", "additionalProperties", "not"}


# --- answers -------------------------------------------------------------------------------------


@attrs.frozen
class Answer:
    """What an answer is to be: a class with fields."""

    schema: Schema
    """As ``response_format`` takes it: each object has something ``required``, so
    where all fields have defaults all are."""
    _kind: Kind

    @classmethod
    def of(cls, kind: Any, what: str) -> Answer:
        """Read a class.

        Raises:
            TypeError: not a class with fields, or a field that JSON cannot hold; the message begins
                with ``what``.
        """
        name = getattr(kind, "__name__", repr(kind))
        reading = Reading(what)
        read = None if isinstance(kind, str) else _kind_of(what, name, kind, reading, {})
        schema = {} if read is None else _schema(read)
        if (
            read is None
            or schema.get("type") != "object"
            or not is_mapping(schema.get("properties"))
        ):
            raise TypeError(
                f"{what} must be a class with fields (attrs, a dataclass, a TypedDict, a "
                f"msgspec.Struct, a pydantic model), not {name}"
            )
        return cls(_requiring_something(schema), read)

    def read(self, data: Any) -> Any:
        """Plain data as an instance of the class.

        Raises:
            Misfit: it does not fit what the schema says.
        """
        return read_value(self._kind, data, strict=True)


@functools.lru_cache(maxsize=256)
def _cached_answer(kind: Any) -> Answer:
    return Answer.of(kind, "into=")


def answer_of(kind: Any) -> Answer:
    """The same object for a class that was seen before.

    Raises:
        TypeError: as :meth:`Answer.of`.
    """
    try:
        hash(kind)
    except TypeError:
        return Answer.of(kind, "into=")
    return _cached_answer(kind)


def object_schema(kind: Any, what: str) -> dict[str, Any]:
    """The schema of a class with fields, as ``response_format`` takes it.

    Raises:
        TypeError: no class with fields, or a field that JSON cannot hold.
    """
    return Answer.of(kind, what).schema


# --- a function's parameters ---------------------------------------------------------------------


@attrs.frozen
class Parameters:
    """What a function takes, as JSON: read once from its signature."""

    schema: dict[str, Any]
    """JSON Schema of type object."""
    description: str
    """What the docstring says, without what it says of single parameters."""
    _record: Record
    injected: Mapping[str, bool] = attrs.Factory(dict[str, bool])
    """Parameters of the class ``inject``, which the caller passes and the model does not know: name to
    whether it must be passed."""

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        name: str,
        *,
        inject: type | None = None,
        known: Mapping[str, Any] | None = None,
        skip_first: bool = False,
    ) -> Parameters:
        """Read a function's signature and docstring.

        Args:
            function: what the model calls.
            name: how an error calls the tool.
            inject: a class whose parameters are not in the schema.
            known: names of annotations that the function's module need not have.
            skip_first: leave out the first parameter: ``self`` of a method that is not bound yet.

        Raises:
            TypeError: a parameter without a type, ``*args``, ``**kwargs``, a positional-only one, or
                a type that JSON cannot say.
        """
        inner, filled = inside_partial(function)
        try:
            signature = signature_of(function)
            parameters = {key: each for key, each in signature.items() if key not in filled}
            documented = tuple(signature_of(inner))
        except TypeError as error:
            raise TypeError(f"tool {name} has a signature that cannot be read: {error}") from None
        if skip_first:
            parameters.pop(next(iter(signature)), None)
        hints = annotations_of(inner, parameters, name, known or {})
        description, words = read_docstring(docstring_of(inner), documented)
        reading = Reading(f"tool {name}")
        scope = getattr(inspect.unwrap(inner), "__globals__", {})
        record = Record(name, dict)
        injected: dict[str, bool] = {}
        for each in parameters.values():
            by_name = each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
            if not by_name or each.name.startswith("__"):
                raise TypeError(
                    f"tool {name} takes {each.replace(default=each.empty)}: a model passes arguments by "
                    "name, each of which must be declared"
                )
            if each.name not in hints:
                raise TypeError(
                    f"tool {name}: parameter {each.name!r} has no type; write "
                    f"{each.name}: str, for example"
                )
            if type(each.default).__name__ == "FieldInfo":
                raise TypeError(
                    f"tool {name}: parameter {each.name!r} would be a Field(...) when the model leaves "
                    f"it out; write {each.name}: Annotated[..., Field(...)]"
                )
            hint = hints[each.name]
            must = None if inject is None else accepts(hint, inject)
            if must is not None:
                injected[each.name] = must and each.default is each.empty
                continue
            if each.default is None:
                # `units: str = None`: a model that is told of the null may send it.
                hint = Optional[hint]  # noqa: UP045  # of any annotation
            kind = _kind_of(f"tool {name}", each.name, hint, reading, scope)
            notes: Schema = {}
            if each.default is not each.empty:
                # The function's own default applies, whatever it is; JSON shows it if it can.
                with suppress(TypeError, ValueError):
                    notes["default"] = plain_value(each.default)
            if words.get(each.name) and not _is_described(kind):
                notes["description"] = words[each.name]
            record.fields.append(
                Field(each.name, each.name, kind, each.default is each.empty, notes)
            )
        return cls(_schema(record), description, record, injected)

    def read(self, arguments: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
        """Keyword arguments for the function; what is absent is left to its defaults.

        Args:
            arguments: plain data, as the model sent it.
            strict: refuse what the schema does not say: a number as text, an unknown name. Otherwise
                ``"3"`` is read as 3 where a number is wanted, and unknown names are ignored.

        Raises:
            ValueError: it does not fit; the message names the place and the types.
        """
        if strict:
            known = {field.name for field in self._record.fields}
            unknown = sorted(set(arguments) - known)
            if unknown:
                raise ValueError(
                    f"unknown argument {unknown[0][:64]!r}; there are {self._record.names}"
                )
        problem: str
        try:
            values: dict[str, Any] = read_value(self._record, arguments, strict=strict)
        except Misfit as misfit:
            problem = f"{misfit.reason} (at {misfit.path})"
        else:
            return values
        raise ValueError(problem)


def _is_described(kind: Kind) -> bool:
    """Whether its own annotation describes it."""
    while isinstance(kind, Noted):
        if "description" in kind.notes:
            return True
        kind = kind.inner
    return isinstance(kind, Alias) and kind.target is not None and _is_described(kind.target)
