"""Python's annotations as kinds of JSON data: :class:`Reading`.

Whatever could fail for a type fails here, as a ``TypeError`` that names the field.
"""

from __future__ import annotations

import collections.abc as abc
import enum
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import attrs
import msgspec

from streamchat.protocol import formats
from streamchat.protocol.constraints import notes_of
from streamchat.protocol.foreign import Foreign, is_foreign, resolved
from streamchat.protocol.kinds import (
    Alias,
    Anything,
    Array,
    Boolean,
    Choice,
    Field,
    Integer,
    Kind,
    Noted,
    Null,
    Number,
    Record,
    Row,
    Schema,
    Table,
    Tagged,
    Text,
    Union,
    literal_key,
    words_of,
)
from streamchat.protocol.plain import is_too_long
from streamchat.protocol.values import plain_value

__all__ = ["Reading"]

_PLAIN: Mapping[Any, Callable[[], Kind]] = {
    Any: Anything,
    None: Null,
    types.NoneType: Null,
    bool: Boolean,
    int: Integer,
    float: Number,
    str: Text,
    typing.LiteralString: Text,
}
_ARRAYS: Mapping[Any, tuple[Callable[[list[Any]], Any], bool]] = {
    list: (list, False),
    set: (set, True),
    frozenset: (frozenset, True),
    abc.Collection: (list, False),
    abc.Iterable: (list, False),
    abc.Sequence: (list, False),
    abc.MutableSequence: (list, False),
    abc.Set: (set, True),
    abc.MutableSet: (set, True),
}
_TABLES = (dict, abc.Mapping, abc.MutableMapping)
_NUMERIC = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"}
_TRANSPARENT = {"Required", "NotRequired", "ReadOnly", "Final"}
"""Qualifiers around a type, by name: some are also in ``typing_extensions``."""


MAX_CLASSES = 60
"""Classes inside of each other; a generic class may hold itself with ever longer arguments."""


class Reading:
    """The kinds of one signature or class: each class becomes one kind, however often it occurs."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._classes: dict[Any, Kind] = {}
        self._aliases: dict[Any, Alias] = {}
        self._meanings: dict[Alias, tuple[int, Callable[[], Any]]] = {}
        """Of aliases: what they stand for, and how many classes deep they are being read."""
        self._where: list[str] = []
        self._scopes: list[_Scope] = []

    def refuse(self, reason: str, where: str = "") -> NoReturn:
        """Refuse a type.

        Raises:
            TypeError: always; it names the field.
        """
        place = where or (self._where[-1] if self._where else "")
        raise TypeError(
            f"{self._what} has a type that JSON Schema cannot describe: "
            + (f"{place}: {reason}" if place else reason)
        )

    def field(self, name: str, annotation: Any, scope: Mapping[str, Any]) -> Kind:
        """The kind of a field or parameter.

        Args:
            name: how an error names it.
            annotation: its type, evaluated; quoted references inside are looked up in ``scope``.
            scope: names of the module.

        Raises:
            TypeError: JSON cannot hold the type.
        """
        return self._inside(name, annotation, _Scope(scope))

    def _inside(self, where: str, annotation: Any, scope: _Scope) -> Kind:
        if len(self._scopes) >= MAX_CLASSES:
            self.refuse(f"classes inside of each other, more than {MAX_CLASSES}", where)
        self._where.append(where)
        self._scopes.append(scope)
        try:
            return self.kind(annotation)
        finally:
            self._where.pop()
            self._scopes.pop()

    def kind(self, annotation: Any) -> Kind:
        """The kind of a type; quoted references are looked up where the field was defined.

        Raises:
            TypeError: JSON cannot hold the type.
        """
        make = _PLAIN.get(_key(annotation))
        if make is not None:
            return make()
        if isinstance(annotation, str | typing.ForwardRef):
            return self._quoted(annotation)
        if isinstance(annotation, typing.TypeVar):
            return self._variable(annotation)
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is typing.Annotated:
            return self._annotated(annotation)
        if origin is typing.Literal:
            return self._literal(arguments)
        if origin is typing.Union or origin is types.UnionType:
            return self._union(arguments, annotation)
        if getattr(origin, "_name", None) in _TRANSPARENT:
            return self.kind(arguments[0])
        if type(annotation).__name__ == "InitVar":
            return self.kind(annotation.type)
        if annotation is typing.Self or getattr(annotation, "_name", None) == "Self":
            cls = self._scopes[-1].cls
            return self.refuse("Self means nothing here") if cls is None else self.kind(cls)
        if isinstance(annotation, typing.NewType):
            return self.kind(annotation.__supertype__)
        if type(annotation).__name__ == "TypeAliasType":
            return self._named(annotation.__name__, _key(annotation), lambda: annotation.__value__)
        if type(origin).__name__ == "TypeAliasType":
            value = origin.__value__[arguments]
            return self._named(origin.__name__, _key(annotation), lambda: value)
        return self._container(annotation, origin, arguments)

    # --- names -----------------------------------------------------------------------------------

    def _quoted(self, reference: str | typing.ForwardRef) -> Kind:
        text = reference if isinstance(reference, str) else reference.__forward_arg__
        scope = self._scopes[-1]
        names = scope.names
        module = None if isinstance(reference, str) else reference.__forward_module__
        if module is not None:
            module = module if isinstance(module, str) else module.__name__
            names = {**_names_of(module), **names}
        # One name of one module means one thing, but for those that a class has for itself.
        is_local = scope.cls is not None and not _inner_classes(scope.cls).keys().isdisjoint(
            re.findall(r"\w+", text)
        )
        key = (text, module or names.get("__name__"), scope.cls if is_local else None)
        return self._named(text, key, lambda: self._value(text, names))

    def _value(self, text: str, names: Mapping[str, Any], where: str = "") -> Any:
        holder = types.SimpleNamespace(__annotations__={"it": text})
        reason: str
        try:
            return get_type_hints(holder, dict(names), include_extras=True)["it"]
        except NameError as error:
            reason = f"{error.name!r} is not defined where {text[:80]!r} stands"
        except Exception as error:  # noqa: BLE001  # evaluating text may raise anything
            reason = f"{text[:80]!r} is not a type ({type(error).__name__})"
        return self.refuse(reason, where)

    def _named(self, name: str, key: Any, value: Callable[[], Any]) -> Kind:
        """The kind of a name: an alias if it is part of its own definition, else what it means."""
        alias = self._aliases.get(key)
        if alias is not None:
            alias.is_recursive |= alias.target is None
        else:
            alias = self._aliases[key] = Alias(name if name.isidentifier() else "Alias")
            self._meanings[alias] = (len(self._scopes), value)
            alias.target = self._known(self.kind(value()))
        return alias if alias.is_recursive or alias.target is None else alias.target

    def _known(self, kind: Kind) -> Kind:
        """The kind, unless it is an alias whose own definition this is."""
        if isinstance(kind, Alias) and kind.target is None:
            self.refuse(f"{kind.name} is defined as nothing but itself")
        return kind

    def _member(self, kind: Kind) -> Kind:
        """A member of a union, which must be known; if a class is in between, it can be read anew."""
        if isinstance(kind, Alias) and kind.target is None:
            depth, value = self._meanings[kind]
            if len(self._scopes) > depth:
                # Ends: the classes are known by now, and another time needs another class.
                self._meanings[kind] = (len(self._scopes), value)
                try:
                    return self.kind(value())
                finally:
                    self._meanings[kind] = (depth, value)
        return self._known(kind)

    def _variable(self, variable: typing.TypeVar) -> Kind:
        if variable.__bound__ is not None:
            return self.kind(variable.__bound__)
        if variable.__constraints__:
            return self._union(variable.__constraints__, variable)
        return Anything()

    # --- Annotated, Literal, unions --------------------------------------------------------------

    def _annotated(self, annotation: Any) -> Kind:
        inner, *metadata = get_args(annotation)
        reason: str
        try:
            notes = notes_of(metadata)
        except (TypeError, ValueError) as error:
            reason = str(error)
        else:
            if notes is None:
                return self._foreign(annotation)
            kind = self.kind(inner)
            try:
                return notes.of(kind)
            except TypeError as error:
                reason = str(error)
        return self.refuse(f"{_name(inner)}: {reason}")

    def _foreign(self, kind: Any) -> Kind:
        reason: str
        try:
            return Foreign(kind)
        except TypeError as error:
            reason = str(error)
        name, _, rest = reason.partition(": ")
        if name.isidentifier() and rest:
            return self.refuse(rest, f"{_name(kind)}.{name}")
        return self.refuse(reason)

    def _literal(self, arguments: Sequence[Any]) -> Kind:
        values: list[tuple[Any, Any]] = []
        for argument in arguments:
            if isinstance(argument, enum.Enum) and isinstance(argument.value, str | int):
                values.append((argument.value, argument))
            elif type(argument) is int and is_too_long(argument):
                self.refuse("a literal of more digits than Python writes")
            elif type(argument) in (str, int, bool, types.NoneType):
                values.append((argument, argument))
            else:
                self.refuse(f"Literal[{argument!r}]: JSON has no such literal")
        return Choice(values)

    def _union(self, arguments: Sequence[Any], annotation: Any) -> Kind:
        wanted = [each for each in arguments if each is not msgspec.UnsetType]
        if len(wanted) == 1:
            return self.kind(wanted[0])
        members: list[Kind] = []
        for kind in [self._member(self.kind(each)) for each in wanted]:
            if isinstance(kind, Anything):
                return kind
            members += kind.members if isinstance(kind, Union) else [kind]
        members = _merged_literals(members)
        objects = [kind for kind in members if "object" in kind.types]
        if len(objects) > 1:
            models = [each for each in wanted if is_foreign(each)]
            tagged: Kind | None = _tagged(objects)
            if tagged is None and len(models) == len(objects):
                tagged = self._foreign(typing.Union[tuple(models)])  # noqa: UP007  # of a tuple
            if tagged is None:
                self.refuse(
                    f"{_name(annotation)} holds {len(objects)} objects that nothing tells apart: give "
                    "each a field of one name with a Literal of its own"
                )
            place = members.index(objects[0])
            members = [kind for kind in members if "object" not in kind.types]
            members.insert(place, tagged)
        return members[0] if len(members) == 1 else self._by_type(members, annotation)

    def _by_type(self, members: Sequence[Kind], annotation: Any) -> Kind:
        claims: dict[str, Kind] = {}
        for member in members:
            for json_type in sorted(member.types):
                other = claims.get(json_type)
                if other is not None:
                    pair = _wider(other, member)
                    if pair is None:
                        self.refuse(
                            f"{_name(annotation)} holds two types that are both JSON's {json_type}"
                        )
                    member_of_type = pair[json_type == "integer"]
                else:
                    member_of_type = member
                claims[json_type] = member_of_type
        for member in members:
            for json_type in sorted(member.spare):
                claims.setdefault(json_type, member)
        return Union(members, claims)

    # --- containers and classes ------------------------------------------------------------------

    def _container(self, annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> Kind:
        plain = origin or annotation
        if not isinstance(plain, type):  # nor need it have a hash
            self.refuse(f"{_name(annotation)} is not a type that JSON can hold")
        if plain in _ARRAYS:
            make, unique = _ARRAYS[plain]
            return Array(self.kind(arguments[0]) if arguments else None, make, unique=unique)
        if plain is tuple:
            if not arguments and origin is None:
                return Array(None, tuple, unique=False)
            if len(arguments) == 2 and arguments[1] is ...:
                return Array(self.kind(arguments[0]), tuple, unique=False)
            return Row([self.kind(each) for each in arguments])
        if plain in _TABLES:
            return self._table(arguments)
        made = formats.formatted(plain)
        if made is not None:
            return made
        key = _key(annotation)
        known = self._classes.get(key)
        if known is None:
            known = self._classes[key] = self._class(annotation, plain, arguments)
        return known

    def _table(self, arguments: tuple[Any, ...]) -> Kind:
        if not arguments:
            return Table(None, None)
        key, value = arguments
        kind = bare = self._known(self.kind(key))
        while isinstance(bare, Noted | Alias):
            if isinstance(bare, Noted) and not _NUMERIC.isdisjoint(bare.notes):
                self.refuse(f"a key of type {_name(key)}: keys are text, which has no bounds")
            bare = bare.inner if isinstance(bare, Noted) else self._target(bare)
        if isinstance(kind, Anything | Text):
            return Table(None, self.kind(value))
        if (
            not bare.types
            or not bare.types <= {"string", "integer", "number"}
            or isinstance(bare, Union)
        ):
            self.refuse(f"a key of type {_name(key)}: keys of JSON objects are text")
        said: Schema = kind.schema(lambda part: part.schema(self._no_part))
        if isinstance(bare, Integer):
            said = {"pattern": "^-?(0|[1-9][0-9]*)$"}
        elif isinstance(bare, Number):
            said = {"pattern": r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"}
        elif isinstance(bare, Choice):
            said = {"enum": [str(each) for each, _ in bare.values]}
        elif "string" not in bare.types or said == {"type": "string"}:
            said = {}
        return Table(kind, self.kind(value), {k: v for k, v in said.items() if k != "type"})

    def _target(self, alias: Alias) -> Kind:
        self._known(alias)
        assert alias.target is not None, "it would be refused"
        return alias.target

    @staticmethod
    def _no_part(part: Kind) -> Schema:
        return {}

    def _class(self, annotation: Any, cls: Any, arguments: tuple[Any, ...]) -> Kind:
        if _is(cls, enum.Enum):
            return self._enum(cls)
        if _is_typed_dict(cls):
            return self._typed_dict(annotation, cls, arguments)
        if _is(cls, msgspec.Struct):
            return self._struct(annotation, cls, arguments)
        if _is(cls, tuple) and hasattr(cls, "_fields"):
            return self._named_tuple(annotation, cls, arguments)
        if hasattr(cls, "__attrs_attrs__"):
            return self._attrs(annotation, cls, arguments)
        if is_foreign(cls):
            return self._foreign(annotation)
        if hasattr(cls, "__dataclass_fields__"):
            return self._dataclass(annotation, cls, arguments)
        return self.refuse(f"{_name(annotation)} is not a type that JSON can hold")

    def _enum(self, cls: type[enum.Enum]) -> Kind:
        members = list(cls)
        values: list[Any] = [member.value for member in members]
        texts = all(isinstance(value, str) for value in values)
        whole = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
        if not values or not (texts or whole):
            self.refuse(f"{_name(cls)} must have members that are all str or all int")
        said = [str.__str__(value) if texts else int.__int__(value) for value in values]
        return Choice(list(zip(said, members, strict=True)), more=cls, doc=_docstring(cls))

    def _record(
        self,
        annotation: Any,
        cls: Any,
        arguments: tuple[Any, ...],
        make: Callable[[dict[str, Any]], Any],
        parts: Sequence[_Part],
        tag: Field | None = None,
        **options: Any,
    ) -> Record:
        """A class with fields. It is known before its fields are: one of them may hold it."""
        label = _name(annotation)
        record = Record(label, make, doc=_docstring(cls), **options)
        record.tag = tag
        key = _key(annotation)
        self._classes[key] = record
        hints = self._hints(cls, arguments, label)
        # Literals first: a field may hold a union that tells this very class by one of them.
        literal = [_is_literal(hints.get(part.attribute, part.annotation)) for part in parts]
        fields: dict[int, Field] = {}
        try:
            for wanted in (True, False):
                for place, part in enumerate(parts):
                    if literal[place] is wanted:
                        fields[place] = self._field(cls, label, part, hints)
                record.fields[:] = [fields[place] for place in sorted(fields)]
        except BaseException:
            del self._classes[key]
            raise
        return record

    def _field(self, cls: Any, label: str, part: _Part, hints: Mapping[str, Any]) -> Field:
        where = f"{label}.{part.attribute}"
        names = {**_names_of(_owner(cls, part.attribute).__module__), **_inner_classes(cls)}
        annotation = hints.get(part.attribute, part.annotation)
        if annotation is None and part.attribute not in hints:
            self.refuse("it has no type", where)
        if type(part.default).__name__ == "FieldInfo":
            self.refuse("its default is a Field(...): write Annotated[..., Field(...)]", where)
        kind = self._inside(where, annotation, _Scope(names, cls))
        notes: Schema = {}
        if part.default is not attrs.NOTHING:
            with suppress(TypeError, ValueError):  # JSON need not be able to say it
                notes["default"] = plain_value(part.default)
        return Field(part.name, part.argument, kind, part.is_required, notes)

    def _hints(self, cls: Any, arguments: tuple[Any, ...], label: str) -> dict[str, Any]:
        """Evaluated annotations by name, type variables replaced."""
        try:
            hints = get_type_hints(cls, None, _inner_classes(cls), include_extras=True)
        except Exception:  # noqa: BLE001  # evaluating annotations may raise anything
            hints = self._hints_one_by_one(cls, label)
        variables = _variables(cls, arguments)
        return {
            name: _replaced(hint, variables.get(_owner(cls, name), {}))
            for name, hint in hints.items()
        }

    def _hints_one_by_one(self, cls: Any, label: str) -> dict[str, Any]:
        """The same, slowly, so that the field can be named whose annotation means nothing."""
        hints: dict[str, Any] = {}
        for owner in reversed(cls.__mro__):
            names = {**_names_of(owner.__module__), **_inner_classes(cls)}
            for name, annotation in _own(owner, "__annotations__", {}).items():
                hints[name] = annotation
                if isinstance(annotation, str | typing.ForwardRef):
                    text = annotation if isinstance(annotation, str) else annotation.__forward_arg__
                    if not re.match(r"(typing\.)?ClassVar\b", text):
                        hints[name] = self._value(text, names, f"{label}.{name}")
        return hints

    def _typed_dict(self, annotation: Any, cls: Any, arguments: tuple[Any, ...]) -> Kind:
        hints = self._hints(cls, arguments, _name(annotation))
        parts = [
            _Part(name, is_required=_is_required(hint, name in cls.__required_keys__))
            for name, hint in hints.items()
        ]
        return self._record(annotation, cls, arguments, dict, parts)

    def _named_tuple(self, annotation: Any, cls: Any, arguments: tuple[Any, ...]) -> Kind:
        defaults: Mapping[str, Any] = cls._field_defaults
        parts = [
            _Part(
                name,
                annotation=Any,
                is_required=name not in defaults,
                default=defaults.get(name, attrs.NOTHING),
            )
            for name in cls._fields
        ]
        return self._record(annotation, cls, arguments, _by_name(cls), parts, takes_array=True)

    def _struct(self, annotation: Any, cls: Any, arguments: tuple[Any, ...]) -> Kind:
        config = cls.__struct_config__
        if config.array_like:
            self.refuse(f"{_name(annotation)} is array_like: a model needs the names of its fields")
        parts: list[_Part] = []
        names = cls.__struct_fields__
        defaults = (msgspec.NODEFAULT,) * (len(names) - len(cls.__struct_defaults__))
        for name, said, default in zip(
            names, cls.__struct_encode_fields__, (*defaults, *cls.__struct_defaults__), strict=True
        ):
            factory = getattr(default, "factory", None)
            shown = default if factory is None else _shown(factory)
            if default in (msgspec.NODEFAULT, msgspec.UNSET):
                shown = attrs.NOTHING
            parts.append(_Part(name, said, is_required=default is msgspec.NODEFAULT, default=shown))
        tag: Field | None = None
        if config.tag is not None:
            tag = Field(config.tag_field, "", Choice([(config.tag, config.tag)]))
        return self._record(
            annotation,
            cls,
            arguments,
            _by_name(cls),
            parts,
            tag,
            is_closed=config.forbid_unknown_fields,
        )

    def _attrs(self, annotation: Any, cls: Any, arguments: tuple[Any, ...]) -> Kind:
        fields = [field for field in attrs.fields(cls) if field.init]
        needed = self._needed(cls, {f.name: f.alias or f.name for f in fields}, annotation)
        parts = [
            _Part(
                field.name,
                argument=field.alias or field.name,
                annotation=field.type,
                is_required=needed[field.name],
                default=_shown(field.default.factory)
                if hasattr(field.default, "factory")
                else field.default,
            )
            for field in fields
        ]
        return self._record(
            annotation, cls, arguments, _by_name(cls), parts, blame=partial(_blamed, cls)
        )

    def _dataclass(self, annotation: Any, cls: Any, arguments: tuple[Any, ...]) -> Kind:
        from dataclasses import MISSING, fields

        hints = self._hints(cls, arguments, _name(annotation))
        defaults = {
            field.name: _shown(field.default_factory) if field.default is MISSING else field.default
            for field in fields(cls)
            if field.init
        }
        for name, hint in hints.items():
            if type(hint).__name__ == "InitVar":
                defaults[name] = getattr(cls, name, attrs.NOTHING)
        needed = self._needed(cls, {name: name for name in defaults}, annotation)
        parts = [
            _Part(name, is_required=needed[name], default=default)
            for name, default in defaults.items()
        ]
        return self._record(annotation, cls, arguments, _by_name(cls), parts)

    def _needed(self, cls: Any, names: Mapping[str, str], annotation: Any) -> dict[str, bool]:
        """Which fields are required by ``__init__``, generated or the caller's own."""
        label = _name(annotation)
        try:
            parameters = inspect.signature(cls).parameters
        except (TypeError, ValueError):
            self.refuse(f"{label} has an __init__ whose signature cannot be read")
        takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
        by_name = {
            name: each
            for name, each in parameters.items()
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        }
        for name, argument in names.items():
            if argument not in by_name and not takes_all:
                self.refuse(f"{label}.{name}: __init__ does not take {argument!r} by name")
        for name, each in parameters.items():
            needed = each.default is each.empty and each.kind not in (
                each.VAR_KEYWORD,
                each.VAR_POSITIONAL,
            )
            if needed and name not in names.values():
                self.refuse(f"{label}: __init__ needs {name!r}, which is not a field")
        return {
            name: argument in by_name and by_name[argument].default is inspect.Parameter.empty
            for name, argument in names.items()
        }


# --- helpers -------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class _Scope:
    """Where an annotation stands."""

    names: Mapping[str, Any]
    """What quoted references mean."""
    cls: type | None = None
    """What ``Self`` means."""


@attrs.frozen
class _Part:
    """A field of a class before its type is read."""

    attribute: str
    name: str = attrs.field(default=attrs.Factory(lambda self: self.attribute, takes_self=True))
    """What JSON calls it."""
    argument: str = attrs.field(default=attrs.Factory(lambda self: self.attribute, takes_self=True))
    """What ``__init__`` calls it."""
    annotation: Any = None
    """Its type where the annotations of the class do not say it."""
    is_required: bool = True
    default: Any = attrs.Factory(lambda: attrs.NOTHING)


def _by_name(cls: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda values: cls(**values)


def _key(annotation: Any) -> Any:
    """What a type is remembered by; ``Annotated`` may hold what cannot be hashed."""
    try:
        hash(annotation)
    except TypeError:
        return repr(annotation)
    return annotation


def _name(annotation: Any) -> str:
    """How an error and a definition name a type."""
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return re.sub(r"\b[A-Za-z_][\w.]*\.(?:<locals>\.)?(?=\w)", "", repr(annotation))[:200]


def _names_of(module: str) -> dict[str, Any]:
    """The names of a module that has been imported."""
    try:
        return vars(import_module(module))
    except ImportError:  # made by exec, say
        return {}


def _inner_classes(cls: Any) -> dict[str, Any]:
    """What a quoted reference may name beside the module's names: the class itself, those inside."""
    own: Mapping[str, Any] = cls.__dict__
    return {
        **{name: value for name, value in own.items() if isinstance(value, type)},
        cls.__name__: cls,
    }


def _is(cls: Any, base: type) -> bool:
    return issubclass(cls, base)


def _own(cls: Any, name: str, otherwise: Any) -> Any:
    """An attribute that is the class's own and not inherited."""
    return cls.__dict__.get(name, otherwise)


def _owner(cls: Any, name: str) -> Any:
    """The class whose annotation of the name is in force."""
    for owner in cls.__mro__:
        if name in _own(owner, "__annotations__", {}):
            return owner
    return cls


def _variables(cls: Any, arguments: tuple[Any, ...]) -> dict[Any, dict[Any, Any]]:
    """What the type variables of a generic class, and of each of its bases, stand for."""
    found: dict[Any, dict[Any, Any]] = {}

    def walk(owner: Any, given: tuple[Any, ...]) -> None:
        parameters = getattr(owner, "__parameters__", ())
        own = dict(zip(parameters, given, strict=False))
        found.setdefault(owner, own)
        for base in _own(owner, "__orig_bases__", owner.__bases__):
            origin = get_origin(base)
            if origin is not None and isinstance(origin, type) and origin is not typing.Generic:
                walk(origin, tuple(_replaced(each, own) for each in get_args(base)))
            elif isinstance(base, type) and base is not object:
                walk(base, ())

    walk(cls, arguments)
    return found


def _replaced(annotation: Any, variables: Mapping[Any, Any]) -> Any:
    """The annotation with type variables replaced by what they stand for."""
    if isinstance(annotation, typing.TypeVar):
        return variables.get(annotation, annotation)
    parameters = getattr(annotation, "__parameters__", ())
    if not variables or not parameters or isinstance(annotation, type):
        return annotation
    return annotation[tuple(variables.get(each, each) for each in parameters)]


def _is_typed_dict(cls: Any) -> bool:
    """Whether it is a ``TypedDict``; that of ``typing_extensions`` is another before Python 3.12."""
    return _is(cls, dict) and hasattr(cls, "__required_keys__") and hasattr(cls, "__total__")


def _is_required(hint: Any, otherwise: bool) -> bool:
    """Whether a key of a ``TypedDict`` must be there; qualifiers may stand inside each other."""
    while get_args(hint):
        name = getattr(get_origin(hint), "_name", None)
        if name in ("Required", "NotRequired"):
            return bool(name == "Required")
        if name not in _TRANSPARENT and get_origin(hint) is not typing.Annotated:
            break
        hint = get_args(hint)[0]
    return otherwise


def _is_literal(hint: Any) -> bool:
    """Whether a type is nothing but literals, whose kind is known without looking at classes."""
    origin = get_origin(hint)
    if getattr(origin, "_name", None) in _TRANSPARENT or origin is typing.Annotated:
        return _is_literal(get_args(hint)[0])
    if origin is typing.Union or origin is types.UnionType:
        return all(_is_literal(each) for each in get_args(hint))
    return origin is typing.Literal or (isinstance(hint, type) and _is(hint, enum.Enum))


def _docstring(cls: Any) -> str:
    """The class's own docstring, but not one that dataclasses and named tuples make."""
    doc = _own(cls, "__doc__", None)
    if not isinstance(doc, str) or doc.startswith(f"{cls.__name__}(") or doc == "An enumeration.":
        return ""
    return inspect.cleandoc(doc)


_EMPTY: tuple[Callable[[], Any], ...] = (list, dict, set, tuple, frozenset)


def _shown(factory: Any) -> Any:
    """The default that a factory stands for, where calling it cannot matter."""
    return next((each() for each in _EMPTY if each is factory), attrs.NOTHING)


def _blamed(cls: Any, values: Mapping[str, Any], reason: str) -> str | None:
    """The field whose converter or validator refuses its value for this reason.

    ``__init__`` does not name it, so its steps are repeated field by field. None if no single field
    is found: ``__attrs_post_init__`` or the class itself refuses the values.
    """
    try:
        instance = object.__new__(cls)
        for field, step in _steps(cls, instance, values):
            try:
                step()
            except Exception as error:  # noqa: BLE001  # converters and validators are the caller's
                return field if words_of(error) == reason else None
    except Exception:  # noqa: BLE001, S110  # an instance that cannot be filled in this way
        pass
    return None


def _steps(
    cls: Any, instance: Any, values: Mapping[str, Any]
) -> Iterator[tuple[str, Callable[[], None]]]:
    """What a generated ``__init__`` does: convert and set each field, then validate each."""
    fields: list[Any] = list(attrs.fields(cls))
    for field in fields:
        given = values.get(field.alias, field.default)
        if hasattr(given, "takes_self") and given is field.default:
            given = given.factory(instance) if given.takes_self else given.factory()
        if given is not attrs.NOTHING:
            yield field.name, partial(_set, instance, field, given)
    for field in fields:
        if field.validator is not None and hasattr(instance, field.name):
            value = getattr(instance, field.name)
            yield field.name, partial(field.validator, instance, field, value)


def _set(instance: Any, field: Any, value: Any) -> None:
    object.__setattr__(instance, field.name, _converted(field, value, instance))


def _converted(field: Any, value: Any, instance: Any) -> Any:
    converter = field.converter
    if converter is None:
        return value
    if not hasattr(converter, "takes_self"):
        return converter(value)
    more = [instance] if converter.takes_self else []
    return converter.converter(value, *more, *([field] if converter.takes_field else []))


def _merged_literals(members: Sequence[Kind]) -> list[Kind]:
    """The members with all literals in the place of the first."""
    literals = [kind for kind in members if isinstance(kind, Choice) and kind.is_literal]
    if len(literals) < 2:
        return list(members)
    whole = Choice([pair for kind in literals for pair in kind.values])
    rest = [kind for kind in members if kind not in literals or kind is literals[0]]
    return [whole if kind is literals[0] else kind for kind in rest]


def _wider(one: Kind, other: Kind) -> tuple[Kind, Kind] | None:
    """Which of two kinds reads numbers with a fraction (or text), and which reads integers.

    ``None`` if nothing tells them apart. A literal beside its own type is that type.
    """
    for first, second in ((one, other), (other, one)):
        if isinstance(first, Choice) and first.is_literal and isinstance(second, Text | Integer):
            return second, second
        if isinstance(_bare(first), Integer) and isinstance(_bare(second), Number):
            return second, first
        if isinstance(first, Choice) and isinstance(_bare(second), Number):
            return second, first
    return None


def _bare(kind: Kind) -> Kind:
    return kind.inner if isinstance(kind, Noted) else kind


def _tagged(members: Sequence[Kind]) -> Tagged | None:
    """The members of a union, told apart by a field that each has with literals of its own."""
    told = [_literals(kind) for kind in members]
    for name in told[0]:
        values = [literals.get(name, []) for literals in told]
        keys = [literal_key(each) for some in values for each in some]
        if all(values) and len(set(keys)) == len(keys):
            return Tagged(name, list(zip(members, values, strict=True)))
    return None


def _literals(kind: Kind) -> dict[str, list[Any]]:
    """The fields of an object that hold nothing but literals, and which."""
    bare = _bare(kind)
    if isinstance(bare, Record):
        found = {field.name: field.kind for field in bare.said}
        return {
            name: [said for said, _ in choice.values]
            for name, choice in ((name, _bare(each)) for name, each in found.items())
            if isinstance(choice, Choice)
        }
    if isinstance(bare, Foreign):
        properties = resolved(bare.raw, bare.raw).get("properties", {})
        said = {name: resolved(each, bare.raw) for name, each in properties.items()}
        return {
            name: [each["const"]] if "const" in each else list(each["enum"])
            for name, each in said.items()
            if "const" in each or "enum" in each
        }
    return {}
