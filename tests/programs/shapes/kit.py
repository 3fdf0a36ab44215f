"""What shapes are made of: sockets, messages, processes, and the lines that tell of them."""
import ctypes
import os
import socket
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
IPPROTO_MPTCP = 262
MACHINE = os.uname().machine
SHAPES = {}
SHAPE = ""


def shape(made):
    """Registers a shape: a function that plays it."""
    SHAPES[made.__name__] = made
    return made


def tell(kind, path, status, sent, received, port, pid=None, method="GET"):
    pid = os.getpid() if pid is None else pid
    line = f"told {SHAPE} {kind} {pid} {method} {path} {status} {sent}/{received} {port}\n"
    os.write(1, line.encode())


def lost(kind, path, source="any"):
    os.write(1, f"lost {SHAPE} {source} {kind} {path}\n".encode())


def within(path, server):
    """The request for `path` was made for the sake of the one for `server`, or for nobody's (`-`)."""
    os.write(1, f"within {SHAPE} {path} {server}\n".encode())


def listen(protocol=0, port=0, reuse=False):
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    return listener


def port_of(sock):
    return sock.getsockname()[1]


def connect(port, protocol=0):
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    sock.connect(("127.0.0.1", port))
    return sock


def request(path, body=b"", method="GET"):
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: h\r\n{length}\r\n".encode() + body


def response(body=b"ok", more=""):
    return f"HTTP/1.1 200 OK\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def head(sock, receive=None):
    """Reads a head; what came behind it."""
    receive = receive or (lambda: sock.recv(65536))
    seen = b""
    while b"\r\n\r\n" not in seen:
        more = receive()
        assert more, seen
        seen += more
    return seen.split(b"\r\n\r\n", 1)


def message(sock, receive=None):
    """Reads a message with a length; its first line, its body."""
    lines, body = head(sock, receive)
    length = [line for line in lines.split(b"\r\n") if line.startswith(b"Content-Length: ")]
    length = int(length[0][16:]) if length else 0
    while len(body) < length:
        body += sock.recv(65536)
    return lines.split(b"\r\n")[0].decode(), body


def serve(sock, count=1, body=b"ok", receive=None, send=None):
    """Answers requests and tells of them."""
    for _ in range(count):
        first, sent = message(sock, receive)
        (send or sock.sendall)(response(body))
        method, path, _ = first.split(" ")
        tell("server", path, 200, len(sent), len(body), port_of(sock), method=method)


def ask(sock, path, body=b"", method="GET", port=None, send=None):
    """Asks and tells of it."""
    (send or sock.sendall)(request(path, body, method))
    first, received = message(sock)
    port = sock.getpeername()[1] if port is None else port
    tell("client", path, first.split(" ")[1], len(body), len(received), port, method=method)


def be(child):
    """Does that and ends the process."""
    code = 1
    try:
        child()
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def fork(child):
    """A child that does that; its process id."""
    pid = os.fork()
    if pid == 0:
        be(child)
    return pid


def wait(*pids):
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0, f"{SHAPE}: a process failed"


def both(listener, server, client):
    """Runs a server that accepts once, and a client."""

    def accepting():
        connection, _ = listener.accept()
        server(connection)

    pids = fork(accepting), fork(lambda: client(port_of(listener)))
    listener.close()
    wait(*pids)


def pipelined_asks(paths, protocol=0):
    def client(port):
        sock = connect(port, protocol)
        for path in paths:
            ask(sock, path)
        sock.close()

    return client


def ask_to_the_end(path, length, is_half_closed=False):
    """A client that reads an answer which the end of its connection ends."""

    def client(port):
        sock = connect(port)
        sock.sendall(request(path))
        if is_half_closed:
            sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass
        tell("client", path, 200, 0, length, port)

    return client


STRANGER, ITSELF = socket.socketpair()


def stranger(what, sock):
    """Has the stranger do something with a socket, and waits for it."""
    socket.send_fds(STRANGER, [what.encode()], [sock.fileno()])
    assert STRANGER.recv(1) == b"."


def be_strange():
    STRANGER.close()
    while True:
        what, fds, _, _ = socket.recv_fds(ITSELF, 64, 1)
        if not what:
            return
        sock = socket.socket(fileno=fds[0])
        if what == b"end":
            sock.shutdown(socket.SHUT_WR)
        elif what == b"read":
            message(sock)
        elif what == b"answer":
            sock.sendall(response())
        sock.close()
        ITSELF.send(b".")


