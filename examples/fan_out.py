"""Many questions at once, under a limit a minute; what fails is counted and does not stop the rest.

Run it with CO_API_KEY set, or against the demo server: start `streamchat serve` and export the
CO_API_URL that it prints.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator

from streamchat import Client, Limiter, MessageEnd

client = Client(model="command-a-plus-05-2026")
limiter = Limiter(rpm=500, tpm=1_000_000)  # may be shared by clients
tokens = 0


@client.on_message_end
def count(event: MessageEnd) -> None:
    global tokens
    tokens += int(event.usage.billed_units.output_tokens or 0)


def questions() -> Iterator[str | dict[str, object]]:
    """Taken one by one as there is room: it may as well be a file of millions."""
    for animal in ("penguin", "lion", "bear", "owl", "fox", "whale"):
        yield f"Where does a {animal} live?"
    yield {"messages": "Why do cats purr?", "max_tokens": 20, "temperature": 0.0}
    yield {"messages": "How hot is the sun?", "temprature": 0.5}  # misspelt: its result says so


async def main() -> None:
    failures: Counter[str] = Counter()
    async with client, client.fan_out(questions(), concurrency=4, limiter=limiter) as results:
        async for result in results:
            if result.response is not None:
                first = result.timing.first_text or 0.0
                print(f"[{result.index}] {result.response.text[:60]!r} after {first:.2f} s")
            else:
                failures[type(result.error).__name__] += 1
                print(f"[{result.index}] failed: {result.error}")
    print(f"{tokens} tokens, failures: {dict(failures) or 'none'}")


asyncio.run(main())
