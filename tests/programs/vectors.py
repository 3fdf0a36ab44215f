"""A client that writes its requests in vectors, some of them empty: `vectors.py PORT`. Prints the
statuses.
"""
import os
import socket
import sys

connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
seen = b""


def ask(write, method, path, body=b"", field="X: x"):
    global seen
    length = f"Content-Length: {len(body)}"
    head = f"{method} {path} HTTP/1.1\r\nHost: h\r\n{field}\r\n{length}\r\n\r\n".encode()
    # A byte, nothing, a few bytes, nothing, the rest.
    parts = [head[:1], b"", head[1:9], b"", b"", head[9:], body[:3], b"", body[3:]]
    assert write(parts) == sum(map(len, parts))
    while b"\r\n\r\n" not in seen:
        seen += connection.recv(65536)
    answer, seen = seen.split(b"\r\n\r\n", 1)
    length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(seen) < length:
        seen += connection.recv(65536)
    seen = seen[length:]
    print(method, path, answer.split()[1].decode(), len(body), length, flush=True)


def writev(parts):
    return os.writev(connection.fileno(), parts)


ask(writev, "GET", "/writev")
ask(connection.sendmsg, "GET", "/sendmsg")
ask(writev, "POST", "/body", b"0123456789")
ask(connection.sendmsg, "POST", "/large", b"x" * 100_000)
# More vectors than are looked at in one operation: the head is told as far as it goes.
def bytewise(parts):
    return writev([bytes([byte]) for byte in b"".join(parts)])


ask(bytewise, "GET", "/many", field="X: " + "x" * 100)
ask(writev, "GET", "/last")
