"""A footnoted answer while it streams: a marker after each cited piece, then the sources.

Run it with CO_API_KEY set, or against the demo server: start `streamchat serve` and export the
CO_API_URL that it prints.
"""

import asyncio

from streamchat import CitationEnd, Client, ContentDelta, Context

client = Client(model="command-a-plus-05-2026")


class Footnotes:
    """Sources numbered in the order in which they are first cited."""

    def __init__(self) -> None:
        self.numbers: dict[str | None, int] = {}

    def marks(self, ids: list[str | None]) -> str:
        return "".join(f"[{self.numbers.setdefault(i, len(self.numbers) + 1)}]" for i in ids)


@client.on_content_delta
async def show(event: ContentDelta) -> None:
    print(event.text, end="", flush=True)


@client.on_citation_end
async def mark(event: CitationEnd, ctx: Context) -> None:
    # The cited text has been shown already: the marker goes right behind it.
    print(ctx.data.marks([source.id for source in event.citation.sources]), end="", flush=True)


async def main() -> None:
    documents = [
        {"id": "emperor", "data": {"text": "Emperor penguins live in Antarctica."}},
        {"id": "adelie", "data": {"text": "Adélie penguins 🐧 build their nests of stones."}},
    ]
    notes = Footnotes()
    try:
        question = "Where do emperor penguins live, and of what do Adélie penguins build nests?"
        answer = await client.chat(question, documents=documents, data=notes)
    finally:
        await client.aclose()
    print("\n\nSources:")
    for source, number in notes.numbers.items():
        print(f"[{number}] {source}")
    # The same once more from the whole answer, as a page would show it.
    print("\nMarked: ", end="")
    for span in answer.cited_spans():
        print(f"<mark>{span.text}</mark>" if span.citations else span.text, end="")
    print()


asyncio.run(main())
