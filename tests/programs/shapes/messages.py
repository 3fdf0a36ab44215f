"""Messages that are odd: what is sent, and what each end says of it."""
from kit import ask, both, connect, listen, port_of, request, response, serve, shape, tell

OK = response(b"")
# Name: (request, response, method, path, status, request's body, response's body, whether another one follows).
MESSAGES = {
    "asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", OK, "OPTIONS", "*", 200, 0, 0, True),
    "lone line feeds": (
        b"GET /lf HTTP/1.1\nHost: h\n\n", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "GET", "/lf", 200, 0, 2, True),
    "folded": (
        b"POST /fold HTTP/1.1\r\nHost: h\r\nX: a\r\n Content-Length: 9\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX: a\r\n\tContent-Length: 9\r\nContent-Length: 2\r\n\r\nok", "POST", "/fold", 200, 2, 2, True),
    "204 with a length": (
        request("/204"), b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "GET", "/204", 204, 0, 0, True),
    "304 with a length": (
        request("/304"), b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET", "/304", 304, 0, 0, True),
    "HEAD in chunks": (
        request("/head", method="HEAD"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HEAD", "/head", 200, 0, 0, True),
    "interim": (
        request("/interim"),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + response(),
        "GET", "/interim", 200, 0, 2, True),
    "CONNECT refused": (
        b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n", b"HTTP/1.1 405 No\r\nContent-Length: 2\r\n\r\nno",
        "CONNECT", "-", 405, 0, 2, True),
    "upgrade refused": (
        b"GET /upgrade HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", response(),
        "GET", "/upgrade", 200, 0, 2, True),
    "chunks": (
        b"POST /chunks HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0002\r\nab\r\n000\r\nT: 1\r\n\r\n",
        "POST", "/chunks", 200, 3, 2, True),
    "the same length twice": (
        b"POST /same HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab", response(),
        "POST", "/same", 200, 2, 2, True),
    "absolute": (b"GET http://h/absolute HTTP/1.1\r\nHost: h\r\n\r\n", response(), "GET", "/absolute", 200, 0, 2, True),
    "kept by 1.0": (
        b"GET /kept HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", "GET", "/kept", 200, 0, 2, True),
    "a line behind the body": (
        b"POST /line HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab\r\n", response(), "POST", "/line", 200, 2, 2, True),
    "no reason": (request("/reason"), b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", "GET", "/reason", 200, 0, 2, True),
    "a status of its own": (
        request("/999"), b"HTTP/1.1 999 Ours\r\nContent-Length: 2\r\n\r\nok", "GET", "/999", 999, 0, 2, True),
    "a body of HEAD": (request("/body", method="HEAD"), response(), "HEAD", "/body", 200, 0, 0, False),
    "until the end": (request("/end"), b"HTTP/1.1 200 OK\r\n\r\nall", "GET", "/end", 200, 0, 3, False),
    "of another coding": (
        request("/gzip"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nall", "GET", "/gzip", 200, 0, 3, False),
    "cut": (request("/cut"), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "GET", "/cut", 200, 0, 4, False),
    "cut chunks": (
        request("/cut-chunks"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
        "GET", "/cut-chunks", 200, 0, 4, False),
}


@shape
def odd_messages():
    for number, row in enumerate(MESSAGES.values()):
        asked, answered, method, path, status, sent, received, goes_on = row

        def server(sock):
            seen = 0
            while seen < len(asked):
                seen += len(sock.recv(65536))
            sock.sendall(answered)
            # The port of a tunnel is the one that was asked for.
            port = 1 if method == "CONNECT" else port_of(sock)
            tell("server", path, status, sent, received, port, method=method)
            if goes_on:
                serve(sock)
            sock.close()

        def client(port):
            sock = connect(port)
            sock.sendall(asked)
            seen = b""
            while len(seen) < len(answered):
                seen += sock.recv(65536)
            tell("client", path, status, sent, received, 1 if method == "CONNECT" else port, method=method)
            if goes_on:
                ask(sock, f"/after/{number}")
            assert sock.recv(1) == b""

        both(listen(), server, client)
