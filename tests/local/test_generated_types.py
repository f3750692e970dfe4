"""2,000 types made at random: LocalServer's model fills the schema of each, and it is read again."""

from __future__ import annotations

import random
from typing import Any

import attrs
import pytest

from streamchat import Client, ToolResult
from streamchat.local import LocalServer
from streamchat.protocol.schema import Parameters, plain_value
from tests.generated_types import generated_type, parameter_of

TYPES = 2000
CHUNKS = 20


@pytest.mark.parametrize("chunk", range(CHUNKS))
async def test_what_the_local_model_says_is_read(chunk: int) -> None:
    """As arguments of a tool and as an answer; what was read is read again from its plain form."""
    async with LocalServer() as server, Client("k", base_url=server.url, model="m") as client:
        for number in range(chunk, TYPES, CHUNKS):
            kind = generated_type(random.Random(number))
            function = parameter_of(kind, "given")
            run = client.run_tools("Call given.", tools=[function], tool_choice="REQUIRED")
            results = [event async for event in run if isinstance(event, ToolResult)]
            assert [result.exception for result in results] == [None], (number, kind)
            into = attrs.make_class("Into", {"x": attrs.field(type=kind)})
            answered: Any = await client.parse("Extract as JSON: something.", into=into)
            for value in (results[0].value, answered.x):
                again = Parameters.of(function, "given").read(
                    {"x": plain_value(value)}, strict=True
                )
                assert again == {"x": value}, (number, kind)
