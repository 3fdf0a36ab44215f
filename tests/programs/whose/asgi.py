"""What `whose` asks, as an ASGI application for uvicorn: one thread, an event loop. BACK is the port of what it asks."""
import asyncio
import os

BACK = int(os.environ["BACK"])
POLLERS = []


async def ask(path):
    reader, writer = await asyncio.open_connection("127.0.0.1", BACK)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    await reader.read()
    writer.close()


async def poll():
    number = 0
    while True:
        await ask(f"/poll/{number}")
        await asyncio.sleep(0.005)
        number += 1


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    path = scope["path"]
    kind = path.split("/")[1]
    if kind == "each":
        for _ in range(2):
            await asyncio.sleep(0.002)
            await ask(path)
    elif kind == "together":
        await asyncio.gather(*[ask(path) for _ in range(3)])
    elif kind == "slow":
        if not POLLERS:
            POLLERS.append(asyncio.create_task(poll()))
        await asyncio.sleep(0.03)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
    if kind == "after":
        await ask(path)
