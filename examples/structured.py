"""An answer as an object of your own class, and what it says so far while it grows.

Run it with CO_API_KEY set, or against the demo server: start `streamchat serve` and export the
CO_API_URL that it prints. `partial` needs `pip install 'streamchat[partial]'`.
"""

import asyncio

import attrs

from streamchat import Client, ContentDelta, StructureError

client = Client(model="command-a-plus-05-2026")


@attrs.define
class Item:
    name: str
    quantity: int


@attrs.define
class Order:
    customer: str
    items: list[Item]
    express: bool = False


async def main() -> None:
    answer = client.parse(
        "Extract the order as JSON. Customer: Ada. Item: apples, quantity: 3. Express: yes.",
        into=Order,
        repair=True,  # if it does not fit, tell the model why and ask once more
    )
    seen = None

    @answer.on_content_delta
    def show(event: ContentDelta) -> None:
        nonlocal seen
        if answer.partial != seen:
            seen = answer.partial
            print("so far:", seen)

    async with client:
        try:
            order = await answer
        except StructureError as error:
            print(f"{error}\n{error.text}")
        else:
            print(
                f"{order.customer} wants {', '.join(f'{i.quantity} {i.name}' for i in order.items)}"
            )


asyncio.run(main())
