"""Python types as JSON Schema, and JSON data read as those types: what tools take, what answers hold.

msgspec knows both sides, so what a schema promises is what :meth:`Parameters.read` accepts: the JSON
types, attrs and dataclasses, ``TypedDict``, enums, ``Literal``, ``Optional`` and other unions, dates,
``UUID``, ``Decimal``, and containers of these.
"""

from __future__ import annotations

import enum
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import attrs
import msgspec

from streamchat.protocol.mismatch import mismatch
from streamchat.protocol.plain import is_list, is_mapping, to_plain

__all__ = ["Parameters", "misfit", "object_schema", "plain_value"]


class _Absent(enum.Enum):
    ABSENT = 0


def _absent() -> Any:
    return _Absent.ABSENT


# --- types to schemas ----------------------------------------------------------------------------


def _schema(kind: Any, what: str) -> dict[str, Any]:
    """The JSON Schema of a type, references written out: models read it better so.

    Raises:
        TypeError: JSON has nothing of the kind; the message begins with ``what``.
    """
    try:
        schema = msgspec.json.schema(kind)
    except TypeError:
        pass
    else:
        return _written_out(schema)
    raise TypeError(f"{what} has a type that JSON Schema cannot describe: {_culprit(kind)}")


def _culprit(kind: Any) -> str:
    """The innermost field or item whose type has no schema, with its type as it is written."""
    place = ""
    while True:
        for name, part in _parts_of_type(kind):
            if not _has_schema(part):
                kind, place = part, f"{place}.{name}" if place and name else place or name
                break
        else:
            spelled = kind.__name__ if isinstance(kind, type) else str(kind)
            return f"{place}: {spelled[:200]}" if place else spelled[:200]


def _parts_of_type(kind: Any) -> list[tuple[str, Any]]:
    """Fields of a class by name, arguments of a generic type without one."""
    if args := get_args(kind):
        return [("", each) for each in args if each is not Ellipsis and not is_list(each)]
    with suppress(AttributeError, NameError, SyntaxError, TypeError, ValueError):
        if issubclass(kind, msgspec.Struct) or attrs.has(kind) or hasattr(kind, "__annotations__"):
            return [*get_type_hints(kind, include_extras=True).items()]
    return []


def _has_schema(kind: Any) -> bool:
    try:
        msgspec.json.schema(kind)
    except TypeError:
        return False
    return True


def _written_out(schema: dict[str, Any]) -> dict[str, Any]:
    definitions: dict[str, Any] = schema.pop("$defs", {})
    recursive: set[str] = set()

    def written_out(node: Mapping[str, Any], inside: tuple[str, ...]) -> dict[str, Any]:
        name = str(node.get("$ref", "")).removeprefix("#/$defs/")
        if name in inside:
            recursive.add(name)
            return dict(node)
        own = {key: item for key, item in node.items() if key not in ("$ref", "title")}
        if name:
            return written_out({**definitions[name], **own}, (*inside, name))
        if is_list(own.get("enum")) and all(isinstance(item, str) for item in own["enum"]):
            own = {"type": "string", **own}
        return _with_parts(own, lambda part: written_out(part, inside))

    whole = written_out(schema, ())
    defined: dict[str, Any] = {}
    while left := sorted(recursive - defined.keys()):  # a type that holds itself has no end
        defined |= {name: written_out(definitions[name], (name,)) for name in left}
    return {**whole, "$defs": defined} if defined else whole


def _with_parts(
    schema: Mapping[str, Any], change: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """A schema whose parts that are schemas are changed; its data (a default, say) stays as it is."""

    def changed(key: str, item: Any) -> Any:
        if key in ("properties", "$defs"):
            return {name: change(part) for name, part in item.items()}
        if key in ("anyOf", "prefixItems"):
            return [change(part) for part in item]
        if key in ("items", "additionalProperties", "propertyNames") and is_mapping(item):
            return change(item)
        return item

    return {key: changed(key, item) for key, item in schema.items()}


def object_schema(kind: Any, what: str) -> dict[str, Any]:
    """The schema of a class with fields, as ``response_format`` takes it (protocol.md 2.6).

    Each object must have something ``required`` there, so where all fields have defaults all are.

    Raises:
        TypeError: no class with fields, or a field that JSON cannot hold.
    """
    schema = _schema(kind, what)
    if schema.get("type") != "object" or "properties" not in schema:
        name = getattr(kind, "__name__", repr(kind))
        raise TypeError(f"{what} must be an attrs class, a dataclass or a TypedDict, not {name}")
    return _requiring_something(schema)


def _requiring_something(schema: Mapping[str, Any]) -> dict[str, Any]:
    whole = _with_parts(schema, _requiring_something)
    if whole.get("properties") and not whole.get("required"):
        whole["required"] = list(whole["properties"])
    return whole


def misfit(value: Any, kind: Any) -> tuple[str, str] | None:
    """Why plain data does not fit a type, and where (a JSON path); ``None`` if it does."""
    try:
        msgspec.convert(value, kind, strict=True, str_keys=True)
    except Exception:  # noqa: BLE001, S110  # a class of the caller's may raise anything
        pass
    else:
        return None
    return mismatch(value, kind)


# --- a function's parameters ---------------------------------------------------------------------


@attrs.frozen
class Parameters:
    """What a function takes, as JSON: read once from its signature."""

    schema: dict[str, Any]
    """JSON Schema of type object."""
    description: str
    """What the docstring says, without what it says of single parameters."""
    _struct: type[msgspec.Struct]

    @classmethod
    def of(cls, function: Callable[..., Any], name: str) -> Parameters:
        """Read a function's signature and docstring.

        Raises:
            TypeError: a parameter without a type, ``*args``, ``**kwargs``, a positional-only one, or
                a type that JSON cannot say; ``name`` is how the message calls the function.
        """
        inner, filled = _inside_partial(function)
        try:
            hints = get_type_hints(inner, include_extras=True)
            parameters = {
                name: each
                for name, each in inspect.signature(function).parameters.items()
                if name not in filled
            }
        except NameError as error:
            raise TypeError(
                f"tool {name} has an annotation that means nothing here: {error.name!r} must be "
                "importable where the function is defined"
            ) from None
        except (AttributeError, SyntaxError, TypeError, ValueError) as error:
            raise TypeError(f"tool {name} has a signature that cannot be read: {error}") from None
        description, words = _read_docstring(inspect.getdoc(inner) or "", tuple(parameters))
        fields: list[Any] = []
        defaults: dict[str, Any] = {}
        for each in parameters.values():
            by_name = each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
            if not by_name or each.name.startswith("__"):
                raise TypeError(
                    f"tool {name} takes {each}: a model passes arguments by name, each of which must "
                    "be declared"
                )
            if each.name not in hints:
                raise TypeError(
                    f"tool {name}: parameter {each.name!r} has no type; write "
                    f"{each.name}: str, for example"
                )
            kind = hints[each.name]
            if each.default is None:
                # `units: str = None`: a model that is told of the null may send it.
                kind = kind | None
            if each.default is each.empty:
                fields.append((each.name, kind))
            else:
                # The function's own default applies, whatever it is; JSON shows it if it can.
                fields.append((each.name, kind, msgspec.field(default_factory=_absent)))
                with suppress(TypeError, ValueError):
                    defaults[each.name] = plain_value(each.default)
        struct = msgspec.defstruct(name, fields, kw_only=True)
        schema = _schema(struct, f"tool {name}")
        schema.setdefault("properties", {})
        for parameter, default in defaults.items():
            schema["properties"][parameter]["default"] = default
        for parameter in parameters:
            told = _annotated_text(hints[parameter]) or words.get(parameter)
            if told:
                schema["properties"][parameter].setdefault("description", told)
        return cls(schema, description, struct)

    def read(self, arguments: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
        """Keyword arguments for the function; what is absent is left to its defaults.

        Args:
            arguments: plain data, as the model sent it.
            strict: refuse what the schema does not say: a number as text, an unknown name. Otherwise
                ``"3"`` is read as 3 where a number is wanted, and unknown names are ignored.

        Raises:
            ValueError: it does not fit; the message names the place and the types.
        """
        names = self._struct.__struct_fields__
        if strict:
            unknown = sorted(set(arguments) - set(names))
            if unknown:
                raise ValueError(
                    f"unknown argument {unknown[0][:64]!r}; there are {', '.join(names)}"
                )
        try:
            read = msgspec.convert(arguments, self._struct, strict=strict, str_keys=True)
        except Exception:  # noqa: BLE001, S110  # a class of the caller's may raise anything
            pass
        else:
            values = {each: getattr(read, each) for each in names}
            return {each: value for each, value in values.items() if value is not _Absent.ABSENT}
        reason, path = mismatch(arguments, self._struct, strict=strict)
        raise ValueError(f"{reason} (at {path})")


def _inside_partial(function: Callable[..., Any]) -> tuple[Callable[..., Any], set[str]]:
    """What has the annotations and the docstring; and which arguments are given already, so that
    they are no business of the model."""
    filled: set[str] = set()
    while isinstance(function, functools.partial):
        filled |= function.keywords.keys()
        function = function.func
    if inspect.isroutine(function):
        return function, filled
    called: Callable[..., Any] = getattr(function, "__call__")  # noqa: B004, B009  # what it does
    return called, filled


def _annotated_text(hint: Any) -> str:
    """The description in ``Annotated[int, "how many"]``."""
    if get_origin(hint) is not Annotated:
        return ""
    return next((each for each in get_args(hint)[1:] if isinstance(each, str)), "")


_HEADING = re.compile(
    r"^[ \t]*(args|arguments|parameters|params|returns?|raises|yields|examples?|notes?)[ \t]*:?[ \t]*"
    r"(\n[ \t]*-+[ \t]*)?$",
    re.IGNORECASE | re.MULTILINE,
)


def _read_docstring(text: str, names: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """The description, and what is said of each parameter.

    Understood are ``name: what it is`` on a line of its own (Google's sections) or behind a sentence,
    ``name (type): ...``, ``:param name: ...`` and NumPy's ``name : type`` with lines below.
    """
    if not names:
        return _HEADING.split(text)[0].strip(), {}
    either = "(" + "|".join(map(re.escape, names)) + ")"
    mark = re.compile(
        rf"^{either}[ \t]+:[ \t]+[^\n]+\n(?=[ \t]+\S)"  # NumPy's
        r"|(?:^[ \t]*|(?<=[.,;:!?)\]])[ \t]+)"  # a line, or what follows a sentence
        rf"(?::param[ \t]+(?:\w+[ \t]+)?)?{either}(?:[ \t]*\([^)\n]*\))?[ \t]*:"
        r"(?:[ \t]*(?=\n)|[ \t]+(?=\S))",
        re.MULTILINE,
    )
    marks = list(mark.finditer(text))
    if not marks:
        return _HEADING.split(text)[0].strip(), {}
    ends = [match.start() for match in marks[1:]] + [len(text)]
    words: dict[str, str] = {}
    for match, end in zip(marks, ends, strict=True):
        said = _HEADING.split(text[match.end() : end])[0]
        said = re.split(r"\n[ \t]*\n|\n[ \t]*:\w+", said)[0]
        words.setdefault(match[1] or match[2], " ".join(said.split()))
    return _HEADING.split(text[: marks[0].start()])[0].strip(), words


# --- values to plain data ------------------------------------------------------------------------


def plain_value(value: Any) -> Any:
    """What a function returned, as plain JSON data.

    Raises:
        TypeError, ValueError: JSON cannot say it.
    """
    try:
        plain = msgspec.to_builtins(value, str_keys=True, enc_hook=_refuse_type)
    except _UnknownTypeError as error:
        problem = str(error)
    except (TypeError, ValueError):
        problem = "has a key that JSON cannot say, or text that is not Unicode"
    except RecursionError:
        problem = "is nested too deeply, or contains itself"
    else:
        return to_plain(plain, "the value")
    raise TypeError(f"the value {problem}")


class _UnknownTypeError(TypeError):
    """Its words are ours, and may be shown."""


def _refuse_type(value: Any) -> Any:
    raise _UnknownTypeError(f"has a part of type {type(value).__name__}, which JSON cannot say")
