"""Two tools, called in parallel, and an answer that cites what they said.

Run it with CO_API_KEY set, or against the demo server: start `streamchat serve` and export the
CO_API_URL that it prints.
"""

import asyncio
from typing import Literal

from streamchat import Client, ContentDelta, StepStart, ToolPlanDelta, ToolResult, tool

client = Client(model="command-a-plus-05-2026")


@tool
async def get_weather(city: str, days: int = 1) -> dict[str, object]:
    """Weather forecast. city: name of the city. days: how many days ahead"""
    return {"city": city, "days": days, "forecast": "sunny", "celsius": 24}


@tool(strict=True, timeout=5)
def calculator(left: float, operator: Literal["+", "-", "*", "/"], right: float) -> float:
    """Calculate with two numbers.

    Args:
        left: the first number
        operator: what to do with them
        right: the second number
    """
    results = {"+": left + right, "-": left - right, "*": left * right}
    return results[operator] if operator in results else left / right


async def main() -> None:
    question = "What is the weather in Lima, and 6 * 7 with the calculator?"
    async with client, client.run_tools(question, tools=[get_weather, calculator]) as run:
        async for event in run:
            match event:
                case StepStart():
                    print(f"-- step {event.step}")
                case ToolPlanDelta():
                    print(event.tool_plan, end="", flush=True)
                case ToolResult():
                    print(f"\n{event.name}{event.tool_call.parsed} -> {event.value or event.error}")
                case ContentDelta():
                    print(event.text, end="", flush=True)
                case _:
                    pass
        response = await run  # the last answer, again
    print(f"\n{len(run.messages)} messages, {len(response.citations)} citations")


asyncio.run(main())
