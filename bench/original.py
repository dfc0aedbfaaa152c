"""The original router's design, written small: FastAPI accepts, websockets connects, two tasks carry messages.

Run by uvicorn with its defaults (uvloop, httptools), as anyone would write and start it. Which replica it goes to is
given in BENCH_REPLICA: selection, error frames and health are not what is measured. A peer in the bench; no part of
the router.
"""

from __future__ import annotations

import asyncio
import os

from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection, connect

REPLICA = os.environ["BENCH_REPLICA"]

app = FastAPI()


@app.websocket("/v1/stream")
async def stream(client: WebSocket) -> None:
    await client.accept()
    async with connect(REPLICA) as replica:
        tasks = [asyncio.create_task(up(client, replica)), asyncio.create_task(down(client, replica))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def up(client: WebSocket, replica: ClientConnection) -> None:
    while True:
        message = await client.receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        await replica.send(message["bytes"] if text is None else text)


async def down(client: WebSocket, replica: ClientConnection) -> None:
    async for message in replica:
        if isinstance(message, str):
            await client.send_text(message)
        else:
            await client.send_bytes(message)
    await client.close()
