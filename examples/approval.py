"""A person approves each refund on the console; without a terminal nobody is asked, and it is refused.

Run it with CO_API_KEY set; without it, it talks to a demo server of its own.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from streamchat import Client, Context, ToolCall, ToolProgress, ToolResult, tool
from streamchat.local import LocalServer


class Shop:
    @tool
    async def look_up_balance(self, customer: str) -> dict[str, object]:
        """Look up the balance of a customer. customer: name of the customer"""
        return {"customer": customer, "balance": 40}

    @tool
    async def refund(self, customer: str, amount: float, ctx: Context) -> AsyncIterator[str]:
        """Refund money to a customer. customer: name of the customer. amount: how much"""
        yield f"sending {amount} as {ctx.data}"
        yield f"refunded {amount} to {customer}"  # the last value is the result too


def approve(call: ToolCall) -> bool | str:
    """Plain, so it runs in a thread: input() does not stop the tools that run."""
    if call.name == "look_up_balance":
        return True
    print(f"\nThe model wants {call.name} {call.parsed}")
    if not sys.stdin.isatty():
        return "nobody is here to approve it"
    answer = input("Run it? y, n, or what to tell the model: ").strip()
    return {"y": True, "n": False}.get(answer, answer)


async def main() -> None:
    shop, question = Shop(), "What is the balance of Ada? Refund 12 to Ada."
    async with AsyncExitStack() as stack:
        key, url = os.environ.get("CO_API_KEY"), None
        if key is None:
            key, url = "none", (await stack.enter_async_context(LocalServer())).url
        client = Client(key, base_url=url, model="command-a-plus-05-2026")
        await stack.enter_async_context(client)
        run = client.run_tools(
            question, tools=[shop.look_up_balance, shop.refund], approve=approve, data="Bob"
        )
        async for event in run:
            if isinstance(event, ToolProgress):
                print(f"{event.name}: {event.value}")
            elif isinstance(event, ToolResult):
                print(f"{event.name} -> {event.error or event.value}")
        print((await run).text)


asyncio.run(main())
