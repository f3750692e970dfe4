"""A chat product's streaming layer as a page of handlers.

Run it with CO_API_KEY set, or against the demo server: start `streamchat serve` and export the
CO_API_URL that it prints.
"""

import asyncio

from streamchat import (
    CitationEnd,
    Client,
    ContentDelta,
    Context,
    MessageEnd,
    StreamChatError,
)

client = Client(model="command-a-plus-05-2026")


@client.on_content_delta
async def show(event: ContentDelta) -> None:
    print(event.text, end="", flush=True)


@client.on_citation_end
async def mark(event: CitationEnd, ctx: Context) -> None:
    ctx.data.append(event.citation)
    print(f"[{len(ctx.data)}]", end="", flush=True)


@client.on_message_end
async def sign(event: MessageEnd, ctx: Context) -> None:
    first = ctx.stream.timing.first_text or 0.0
    print(f"\n{event.finish_reason}, first text after {first * 1000:.0f} ms")


@client.on_error(StreamChatError)
async def report(error: StreamChatError) -> None:
    print(f"\nthe answer failed: {error}")


async def main() -> None:
    documents = ["Emperor penguins live in Antarctica.", "Adélie penguins nest on stones."]
    try:
        answer = await client.chat("Where do emperor penguins live?", documents=documents, data=[])
        for number, citation in enumerate(answer.citations, 1):
            print(f"[{number}] {citation.text!r}: {[source.id for source in citation.sources]}")
    finally:
        await client.aclose()


asyncio.run(main())
