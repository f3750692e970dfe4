"""Records are compared and shown as ``attrs`` would do it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import attrs
import pytest
from hypothesis import given

from streamchat.protocol import events, messages
from streamchat.protocol.record import FrozenRecord, Record

from .helpers import examples
from .strategies import events as any_event

RECORDS = [
    cls
    for module in (events, messages)
    for cls in vars(module).values()
    if isinstance(cls, type) and attrs.has(cls) and cls.__module__ == module.__name__
]


def twin(cls: type) -> type:
    """The class as ``attrs`` alone makes it."""
    fields = {
        field.name: attrs.field(
            default=field.default, repr=field.repr, eq=field.eq, init=field.init
        )
        for field in attrs.fields(cls)
    }
    made = attrs.make_class(cls.__name__, fields)
    made.__qualname__ = cls.__qualname__
    return made


def as_twin(value: Any) -> Any:
    other: Any = object.__new__(twin(type(value)))
    for field in attrs.fields(type(value)):
        setattr(other, field.name, getattr(value, field.name))
    return other


@examples(200)
@given(any_event)
def test_a_record_is_shown_as_attrs_shows_it(event: Any) -> None:
    """Names, order, what is left out, and what is shown by its size alone."""
    assert repr(event) == repr(as_twin(event))


@examples(400)
@given(any_event, any_event)
def test_equal_are_those_whose_fields_are(one: Any, other: Any) -> None:
    """Of one class, and nothing else."""
    same = type(one) is type(other) and all(
        getattr(one, field.name) == getattr(other, field.name)
        for field in attrs.fields(type(one))
        if field.eq
    )
    assert (one == other) is same
    assert (one != other) is not same
    assert one == copy.deepcopy(one) == pickle.loads(pickle.dumps(one))


def test_other_classes_and_subclasses_are_unequal() -> None:
    """Also with the same fields, and to what is no record."""

    @attrs.define(eq=False, repr=False)
    class Loud(events.ContentDelta):
        pass

    assert events.ContentDelta("x") != Loud("x")
    assert events.ContentDelta("x") != "x"
    assert repr(Loud("x")).startswith("Loud(text='x', index=0")


@pytest.mark.parametrize("cls", RECORDS)
def test_what_can_be_changed_is_not_hashable(cls: type) -> None:
    """All of the vocabulary compares by its fields, so none of it has a hash."""
    assert issubclass(cls, Record)
    assert cls.__hash__ is None


def test_what_cannot_be_changed_is_hashable() -> None:
    """By its fields, those that are compared."""

    @attrs.frozen(eq=False, repr=False)
    class Point(FrozenRecord):
        x: int
        name: str = attrs.field(default="", eq=False)

    @attrs.frozen(eq=False, repr=False)
    class Nothing(FrozenRecord):
        pass

    assert {Point(1), Point(1, "b"), Point(2)} == {Point(2), Point(1, "c")}
    assert (Nothing(), hash(Nothing()), repr(Nothing())[-9:]) == (
        Nothing(),
        hash(Nothing()),
        "Nothing()",
    )
