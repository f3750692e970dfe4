"""A conversation of several turns: trimmed, saved as JSON, taken up again, and branched.

Run it with CO_API_KEY set, or against the demo server: start `streamchat serve` and export the
CO_API_URL that it prints.
"""

import asyncio
import tempfile
from pathlib import Path

from streamchat import Client, Conversation, last_turns


async def ask(client: Client, talk: Conversation, question: str) -> None:
    """One turn: the user's, then the model's as it streams."""
    print(f"> {question}")
    talk.user(question)
    async with client.chat_stream(talk.messages) as stream:
        async for piece in stream.text():
            print(piece, end="", flush=True)
        talk.add(await stream)
    talk.trim(last_turns(3))  # the system message and three questions with their answers
    print(f"\n  {talk}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "talk.json"
        async with Client(model="command-a-plus-05-2026") as client:
            talk = Conversation(system="Be brief.")
            await ask(client, talk, "My name is Ada.")
            await ask(client, talk, "What is RAG?")
            saved.write_text(talk.to_json(), encoding="utf-8")

            talk = Conversation.from_json(saved.read_text(encoding="utf-8"))
            print("  resumed from", saved.stat().st_size, "bytes")
            await ask(client, talk, "What is my name?")

            branch = talk.copy()
            await ask(client, branch, "What is a token?")  # the first question is trimmed away
            await ask(client, branch, "What is my name?")
            print("the branch:", branch, "- the original:", talk)


asyncio.run(main())
