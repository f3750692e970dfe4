"""A bot that edits its message while the model writes, in a chat service that takes an edit a second.

The chat service is a fake one, on this machine: like real ones it answers 429 to whoever edits too often.
Run it with CO_API_KEY set, or against the demo server: start `streamchat serve` and export the
CO_API_URL that it prints.
"""

import asyncio

import aiohttp
from aiohttp import web

from streamchat import Client, ContentDelta, Context, MessageEnd

client = Client(model="command-a-plus-05-2026")


class Message:
    """The bot's message in the chat service."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http, self.url, self.text = http, url, ""

    async def edit(self, text: str) -> None:
        while True:
            async with self.http.put(self.url, data=text) as response:
                if response.status != 429:
                    response.raise_for_status()
                    return
            await asyncio.sleep(float(response.headers["Retry-After"]))


# At most one call a second, with all the text that has come since; the answer is read on meanwhile. The end
# of a block comes at once, so the service may refuse an edit then, and `edit` sends it again.
@client.on(ContentDelta, MessageEnd)(every=1.0)
async def write(event: ContentDelta | MessageEnd, ctx: Context) -> None:
    message: Message = ctx.data
    if isinstance(event, MessageEnd):
        await message.edit(message.text)
    elif event.text:
        message.text += event.text
        await message.edit(message.text + " …")


# --- the fake chat service -----------------------------------------------------------------------

edits: list[str] = []
refused: list[float] = []
free_at = 0.0


async def put_message(request: web.Request) -> web.Response:
    global free_at
    wait = free_at - asyncio.get_running_loop().time()
    if wait > 0:
        refused.append(wait)
        return web.Response(status=429, headers={"Retry-After": f"{wait:.3f}"})
    edits.append(await request.text())
    free_at = asyncio.get_running_loop().time() + 1.0
    return web.Response()


async def main() -> None:
    service = web.Application()
    service.router.add_put("/message", put_message)
    runner = web.AppRunner(service)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as http, client:
        message = Message(http, f"http://127.0.0.1:{port}/message")
        answer = await client.chat("What is streaming?", data=message)
    assert edits[-1] == answer.text
    print(f"{len(edits)} edits, {len(refused)} refused: {edits[-1]!r}")
    await runner.cleanup()


asyncio.run(main())
