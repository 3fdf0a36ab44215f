"""The scenes' endpoints as an ASGI application, for uvicorn: `uvicorn asgi:app`."""

BIG = bytes(1 << 20)


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    method, path = scope["method"], scope["path"]
    fields = dict(scope["headers"])
    if path in ("/stream", "/flood"):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            part = f"part {number}\n".encode() if path == "/stream" else bytes(100_000)
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})
        return
    extra = []
    if path == "/hello" and fields.get(b"if-none-match") == b'"remora"':
        status, content = 304, b""
    elif path == "/hello":
        status, content = 200, b"hello\n"
        extra = [(b"etag", b'"remora"')]
    elif path == "/big":
        status, content = 200, BIG
    elif path == "/echo" and method == "POST":
        status, content = 200, body
    elif path == "/moved":
        status, content = 302, b""
        extra = [(b"location", b"/hello")]
    elif path == "/none":
        status, content = 204, b""
    else:
        status, content = 404, b"not here\n"
    if status not in (204, 304):
        extra.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": extra})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else content})
