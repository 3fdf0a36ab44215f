"""A server that does exactly what it is told: `raw.py STEP…`, for one connection.

Prints its port. Steps: `r:TEXT` reads until TEXT has come, `w:TEXT` writes it in one call, `k:TEXT` has a child
write it, `v:A|B` writes the parts with one writev, `e` reads to the end, `h` ends the sending direction, `x` resets,
`c` closes, `u` switches to Unix sockets (first step; prints a path), `f:PATH` waits for
a line on a FIFO. Backslash escapes are understood.
Prints `done` after the last step and waits to be killed.
"""
import os
import socket
import struct
import sys
import tempfile
import threading

steps = sys.argv[1:]
unix = steps[0] == "u"
if unix:
    steps = steps[1:]
    path = os.path.join(tempfile.mkdtemp(prefix="remora-raw-"), "s")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    print(path, flush=True)
else:
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)
connection, _ = server.accept()
if unix:
    os.unlink(path)
    os.rmdir(os.path.dirname(path))


def text(step):
    return step[2:].encode("latin-1").decode("unicode_escape").encode("latin-1")


seen = b""
for step in steps:
    if step.startswith("r:"):
        wanted = text(step)
        while wanted not in seen:
            more = connection.recv(65536)
            assert more, f"closed before {wanted!r} in {seen!r}"
            seen += more
        seen = seen[seen.index(wanted) + len(wanted):]
    elif step.startswith("w:"):
        connection.sendall(text(step))
    elif step.startswith("k:"):
        child = os.fork()
        if child == 0:
            connection.sendall(text(step))
            os._exit(0)
        os.waitpid(child, 0)
    elif step.startswith("v:"):
        parts = text(step).split(b"|")
        assert os.writev(connection.fileno(), parts) == sum(map(len, parts))
    elif step == "e":
        try:
            while connection.recv(65536):
                pass
        except ConnectionError:
            pass
    elif step.startswith("f:"):
        with open(step[2:]) as fifo:
            fifo.read()
    elif step == "h":
        connection.shutdown(socket.SHUT_WR)
    elif step == "x":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    elif step == "c":
        connection.close()
    else:
        raise SystemExit(f"unknown step {step!r}")
print("done", flush=True)
threading.Event().wait()
