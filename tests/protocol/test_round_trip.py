"""2,000 types made at random: what fits the schema is read, alike in each way, and written again."""

from __future__ import annotations

import random
from typing import Any

import attrs
import jsonschema
import pytest

from streamchat.protocol.schema import Answer, Parameters, plain_value
from tests.generated_types import data_for, generated_type, parameter_of

TYPES = 2000
CHUNKS = 20


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_what_fits_the_schema_is_read_and_written_again(chunk: int) -> None:
    """Tools strictly and leniently, and answers, give one value; its plain form is read as it again."""
    for number in range(chunk, TYPES, CHUNKS):
        chance = random.Random(number)
        kind = generated_type(chance)
        parameters = Parameters.of(parameter_of(kind), "f")
        answer = Answer.of(attrs.make_class("Into", {"x": attrs.field(type=kind)}), "into=")
        jsonschema.Draft202012Validator.check_schema(parameters.schema)
        validator = jsonschema.Draft202012Validator(parameters.schema)
        for _ in range(3):
            data: Any = data_for(parameters.schema, chance)
            validator.validate(data)
            if "x" not in data:
                continue
            value = parameters.read(data, strict=True)["x"]
            for again in (
                parameters.read(data, strict=False)["x"],
                answer.read(data).x,
                parameters.read({"x": plain_value(value)}, strict=True)["x"],
            ):
                assert again == value, (number, kind, data)
                assert type(again) is type(value), (number, kind, data)


def test_keys_that_json_writes_alike_are_refused() -> None:
    """One of the two items would be lost."""
    with pytest.raises(ValueError, match="two keys"):
        plain_value({1: "a", "1": "b"})
