"""Requests in rare system calls and between processes of rare shapes: `shapes.py SHAPE…`, or all of them.

Prints `ready`, waits for a line, plays the shapes one after the other and prints `done`. Every shape has a server and a
client, each a process of its own that is forked after that line; a `stranger` was forked before it. They tell what
they did, a line a request: `told SHAPE KIND PID METHOD PATH STATUS SENT/RECEIVED PORT`, `-` for what cannot be known.
A line `lost SHAPE PATH` says that something of the request is moved by somebody else, or in a way that nobody sees.
"""
import array
import ctypes
import mmap
import os
import socket
import struct
import sys
import tempfile

LIBC = ctypes.CDLL(None, use_errno=True)
IPPROTO_MPTCP = 262
CLONE_FILES, CLONE_NEWNET = 0x400, 0x40000000
MACHINE = os.uname().machine
SYS_CLONE, SYS_CLOSE_RANGE = {"x86_64": 56}.get(MACHINE, 220), 436
SHAPES = {}
SHAPE = ""


def shape(made):
    """Registers a shape: gives a listener's parts to its server and client."""
    SHAPES[made.__name__] = made
    return made


def tell(kind, path, status, sent, received, port, pid=None, method="GET"):
    pid = os.getpid() if pid is None else pid
    line = f"told {SHAPE} {kind} {pid} {method} {path} {status} {sent}/{received} {port}\n"
    os.write(1, line.encode())


def lost(path):
    os.write(1, f"lost {SHAPE} {path}\n".encode())


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


def fork(child):
    """A child that does that; its process id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
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


@shape
def plain():
    both(listen(), lambda sock: serve(sock, 2), pipelined_asks(["/plain/1", "/plain/2"]))


@shape
def mptcp_listener():
    both(listen(IPPROTO_MPTCP), lambda sock: serve(sock, 2), pipelined_asks(["/mptcp-listener/1", "/mptcp-listener/2"]))


@shape
def mptcp_client():
    both(listen(), lambda sock: serve(sock, 2), pipelined_asks(["/mptcp-client/1", "/mptcp-client/2"], IPPROTO_MPTCP))


@shape
def mptcp_both():
    paths = [f"/mptcp-both/{number}" for number in range(3)]
    both(listen(IPPROTO_MPTCP), lambda sock: serve(sock, 3), pipelined_asks(paths, IPPROTO_MPTCP))


@shape
def mptcp_until_the_end():
    def server(sock):
        head(sock)
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
        port = port_of(sock)
        sock.close()
        tell("server", "/mptcp-end", 200, 0, 13, port)

    def client(port):
        sock = connect(port, IPPROTO_MPTCP)
        sock.sendall(request("/mptcp-end"))
        while sock.recv(4096):
            pass
        tell("client", "/mptcp-end", 200, 0, 13, port)

    both(listen(IPPROTO_MPTCP), server, client)


def pass_on(channel, sock):
    rights = array.array("i", [sock.fileno()])
    channel.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def take(channel):
    _, fds, _, _ = socket.recv_fds(channel, 1, 1)
    return socket.socket(fileno=fds[0])


@shape
def rights_before_the_request():
    listener = listen()
    mine, theirs = socket.socketpair()

    def acceptor():
        connection, _ = listener.accept()
        pass_on(mine, connection)

    pids = [fork(acceptor), fork(lambda: serve(take(theirs), 2))]
    pids.append(fork(lambda: pipelined_asks(["/rights-before/1", "/rights-before/2"])(port_of(listener))))
    listener.close()
    wait(*pids)


@shape
def rights_in_the_request():
    listener = listen()
    mine, theirs = socket.socketpair()

    def reader():
        connection, _ = listener.accept()
        message(connection)
        pass_on(mine, connection)
        tell("server", "/rights-in/1", 200, 0, 2, port_of(connection))

    def writer():
        sock = take(theirs)
        sock.sendall(response())
        serve(sock)

    pids = [fork(reader), fork(writer)]
    pids.append(fork(lambda: pipelined_asks(["/rights-in/1", "/rights-in/2"])(port_of(listener))))
    listener.close()
    wait(*pids)


@shape
def prefork():
    listener = listen()

    def worker():
        connection, _ = listener.accept()
        serve(connection, 2)

    workers = [fork(worker) for _ in range(3)]

    def client():
        socks = [connect(port_of(listener)) for _ in workers]
        for number in range(2):
            for index, sock in enumerate(socks):
                ask(sock, f"/prefork/{index}/{number}")

    workers.append(fork(client))
    listener.close()
    wait(*workers)


@shape
def reuseport():
    first = listen(reuse=True)
    second = listen(port=port_of(first), reuse=True)
    asks, workers = 8, []

    def worker(listener, other):
        other.close()
        listener.settimeout(0.0)
        import select

        while True:
            ready, _, _ = select.select([listener, gone], [], [])
            if listener in ready:
                connection, _ = listener.accept()
                connection.setblocking(True)
                serve(connection)
                connection.close()
            elif gone in ready:
                return

    gone, alive = socket.socketpair()
    for pair in ((first, second), (second, first)):
        workers.append(fork(lambda pair=pair: (alive.close(), worker(*pair))))

    def client():
        for number in range(asks):
            sock = connect(port_of(first))
            ask(sock, f"/reuseport/{number}")
            sock.close()

    wait(fork(client))
    alive.close()
    gone_copy = gone
    first.close()
    second.close()
    wait(*workers)
    gone_copy.close()


def file_of(content):
    file = tempfile.TemporaryFile()
    file.write(content)
    file.flush()
    file.seek(0)
    return file


BODY = bytes(range(256)) * 80


@shape
def sendfile_behind_more():
    def server(sock):
        for number in range(2):
            message(sock)
            sock.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n".encode(), socket.MSG_MORE)
            file, sent = file_of(BODY), 0
            while sent < len(BODY):
                sent += os.sendfile(sock.fileno(), file.fileno(), sent, len(BODY) - sent)
            tell("server", f"/sendfile/{number}", 200, 0, len(BODY), port_of(sock))

    both(listen(), server, pipelined_asks(["/sendfile/0", "/sendfile/1"]))


@shape
def splice_into():
    def server(sock):
        for number in range(2):
            message(sock)
            sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n".encode())
            file, sent = file_of(BODY), 0
            out, into = os.pipe()
            while sent < len(BODY):
                moved = os.splice(file.fileno(), into, len(BODY) - sent)
                sent += moved
                while moved:
                    moved -= os.splice(out, sock.fileno(), moved)
            tell("server", f"/splice-into/{number}", 200, 0, len(BODY), port_of(sock))

    both(listen(), server, pipelined_asks(["/splice-into/0", "/splice-into/1"]))


@shape
def splice_from():
    """A body that goes from the socket into a pipe is seen by no source."""

    def server(sock):
        first, body = message_head_only(sock)
        out, into = os.pipe()
        left = len(BODY) - len(body)
        while left:
            moved = os.splice(sock.fileno(), into, left)
            left -= moved
            while moved:
                moved -= len(os.read(out, moved))
        sock.sendall(response())
        tell("server", "/splice-from/0", 200, len(BODY), 2, port_of(sock), method="POST")
        serve(sock)

    def message_head_only(sock):
        # Byte for byte, so that all of the body is left.
        lines, body = head(sock, lambda: sock.recv(1))
        return lines, body

    def client(port):
        sock = connect(port)
        ask(sock, "/splice-from/0", BODY, "POST")
        ask(sock, "/splice-from/1")

    both(listen(), server, client)


@shape
def spawned_in_a_request():
    """vfork(2) and exec while a request is open."""

    def server(sock):
        for number in range(2):
            message(sock)
            wait(os.posix_spawn("/bin/true", ["true"], os.environ))
            sock.sendall(response())
            tell("server", f"/spawned/{number}", 200, 0, 2, port_of(sock))

    both(listen(), server, pipelined_asks(["/spawned/0", "/spawned/1"]))


@shape
def spawned_to_answer():
    """A program that is started for a request writes its answer, as CGI does."""

    def server(sock):
        for number in range(2):
            message(sock)
            os.set_inheritable(sock.fileno(), True)
            text = response().decode().replace("\r", "\\r").replace("\n", "\\n")
            wait(os.posix_spawn("/bin/sh", ["sh", "-c", f"exec printf '{text}' >&{sock.fileno()}"], os.environ))
            tell("server", f"/answering/{number}", 200, 0, 2, port_of(sock))

    both(listen(), server, pipelined_asks(["/answering/0", "/answering/1"]))


@shape
def connected_twice():
    listeners = [listen(), listen()]

    def server(listener):
        connection, _ = listener.accept()
        serve(connection)
        # Disconnected, by a reset if need be.
        try:
            assert connection.recv(1) == b""
        except ConnectionResetError:
            pass

    pids = [fork(lambda listener=listener: server(listener)) for listener in listeners]

    def client():
        sock = socket.socket()
        for index, listener in enumerate(listeners):
            sock.connect(("127.0.0.1", port_of(listener)))
            ask(sock, f"/twice/{index}")
            unspecified = ctypes.create_string_buffer(struct.pack("H14x", socket.AF_UNSPEC))
            assert LIBC.connect(sock.fileno(), unspecified, 16) == 0

    wait(*pids, fork(client))
    for listener in listeners:
        listener.close()


@shape
def half_closed():
    def server(sock):
        head(sock)
        assert sock.recv(1) == b""
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
        port = port_of(sock)
        sock.close()
        tell("server", "/half", 200, 0, 13, port)

    def client(port):
        sock = connect(port)
        sock.sendall(request("/half"))
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass
        tell("client", "/half", 200, 0, 13, port)

    both(listen(), server, client)


@shape
def reset_by_the_client():
    def server(sock):
        port = port_of(sock)
        head(sock)
        try:
            while sock.recv(1):
                pass
        except ConnectionResetError:
            pass
        tell("server", "/reset", "-", 0, "-", port)

    def client(port):
        sock = connect(port)
        sock.sendall(request("/reset"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        tell("client", "/reset", "-", 0, "-", port)

    both(listen(), server, client)


@shape
def peeked():
    def server(sock):
        for number in range(2):
            while b"\r\n\r\n" not in sock.recv(4096, socket.MSG_PEEK):
                pass
            serve(sock)

    both(listen(), server, pipelined_asks(["/peeked/0", "/peeked/1"]))


@shape
def thrown_away():
    """A body that is discarded with MSG_TRUNC."""

    def server(sock):
        head(sock, lambda: sock.recv(1))
        left = len(BODY)
        buffer = ctypes.create_string_buffer(8)
        while left:
            moved = LIBC.recv(sock.fileno(), buffer, left, socket.MSG_TRUNC)
            assert moved > 0
            left -= moved
        sock.sendall(response())
        tell("server", "/thrown/0", 200, len(BODY), 2, port_of(sock), method="POST")
        serve(sock)

    def client(port):
        sock = connect(port)
        ask(sock, "/thrown/0", BODY, "POST")
        ask(sock, "/thrown/1")

    both(listen(), server, client)


@shape
def corked():
    def server(sock):
        for number in range(2):
            message(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            for byte in response():
                sock.send(bytes([byte]))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
            tell("server", f"/corked/{number}", 200, 0, 2, port_of(sock))

    both(listen(), server, pipelined_asks(["/corked/0", "/corked/1"]))


@shape
def urgent_inline():
    """The byte that is sent as urgent is one of the path."""

    def client(port):
        sock = connect(port)
        sock.sendall(b"GET /urgent")
        sock.send(b"!", socket.MSG_OOB)
        sock.sendall(b" HTTP/1.1\r\nHost: h\r\n\r\n")
        message(sock)
        tell("client", "/urgent!", 200, 0, 2, port)
        ask(sock, "/after")

    listener = listen()
    # Taken over by what is accepted.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    both(listener, lambda sock: serve(sock, 2), client)


@shape
def urgent_aside():
    """An urgent byte between two requests, which the server never reads."""

    def server(sock):
        serve(sock)
        serve(sock)

    def client(port):
        sock = connect(port)
        ask(sock, "/aside/1")
        sock.send(b"!", socket.MSG_OOB)
        ask(sock, "/aside/2")

    both(listen(), server, client)


@shape
def fast_open():
    listener = listen()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)

    def client(port):
        for number in range(2):
            sock = socket.socket()
            send = lambda data: sock.sendto(data, socket.MSG_FASTOPEN, ("127.0.0.1", port))
            ask(sock, f"/fast/{number}", port=port, send=send)
            sock.close()

    def server():
        for _ in range(2):
            connection, _ = listener.accept()
            serve(connection)

    wait(fork(server), fork(lambda: client(port_of(listener))))
    listener.close()


@shape
def pair():
    one, two = socket.socketpair()

    def server():
        two.close()
        for _ in range(2):
            first, _ = message(one)
            one.sendall(response())
            tell("server", first.split(" ")[1], 200, 0, 2, "-")

    def client():
        one.close()
        for number in range(2):
            ask(two, f"/pair/{number}", port="-")

    pids = fork(server), fork(client)
    one.close()
    two.close()
    wait(*pids)


@shape
def abstract():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0remora-{os.getpid()}")
    listener.listen()

    def server():
        connection, _ = listener.accept()
        for _ in range(2):
            first, _ = message(connection)
            connection.sendall(response())
            tell("server", first.split(" ")[1], 200, 0, 2, "-")

    def client():
        sock = socket.socket(socket.AF_UNIX)
        # A name of its own, as the server has.
        sock.bind("")
        sock.connect(listener.getsockname())
        for number in range(2):
            ask(sock, f"/abstract/{number}", port="-")

    wait(fork(server), fork(client))
    listener.close()


@shape
def other_network():
    """Sockets of the namespace that the process was in before, and of the one that it is in."""
    listener = listen()

    def server():
        connection, _ = listener.accept()
        serve(connection)
        assert LIBC.unshare(CLONE_NEWNET) == 0
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as lo:
            fcntl.ioctl(lo, 0x8914, struct.pack("16sH14x", b"lo", 0x41))
        inner = listen(port=port_of(connection))

        def client():
            ask(connect(port_of(inner)), "/network/inner")

        pid = fork(client)
        inside, _ = inner.accept()
        serve(inside)
        wait(pid)
        serve(connection)

    def client():
        sock = connect(port_of(listener))
        ask(sock, "/network/before")
        ask(sock, "/network/after")

    wait(fork(server), fork(client))
    listener.close()


def clone(flags, child):
    """As fork, with flags."""
    pid = LIBC.syscall(ctypes.c_long(SYS_CLONE), ctypes.c_ulong(flags | 17), 0, 0, 0, 0)
    assert pid >= 0
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        finally:
            os._exit(code)
    return pid


@shape
def shared_descriptors():
    """Two processes with one table: one accepts and reads, the other answers."""
    listener = listen()

    def server():
        flag, told = os.pipe()

        def reader():
            connection, _ = listener.accept()
            message(connection)
            tell("server", "/shared/1", 200, 0, 2, port_of(connection))
            os.write(told, struct.pack("i", connection.detach()))

        pid = clone(CLONE_FILES, reader)
        (fd,) = struct.unpack("i", os.read(flag, 4))
        sock = socket.socket(fileno=fd)
        sock.sendall(response())
        serve(sock)
        wait(pid)

    both_pids = fork(server), fork(lambda: pipelined_asks(["/shared/1", "/shared/2"])(port_of(listener)))
    listener.close()
    wait(*both_pids)


@shape
def replaced():
    """dup2(2) closes the connection that had the number, in the middle of its request."""

    def server(sock):
        head(sock)
        port = port_of(sock)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, sock.fileno())
        tell("server", "/replaced", "-", 0, "-", port)

    def client(port):
        sock = connect(port)
        sock.sendall(request("/replaced"))
        assert sock.recv(1) == b""
        tell("client", "/replaced", "-", 0, "-", port)

    both(listen(), server, client)


@shape
def closed_by_range():
    def server(sock):
        head(sock)
        port, fd = port_of(sock), sock.fileno()
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
        assert LIBC.syscall(SYS_CLOSE_RANGE, fd, fd, 0) == 0
        tell("server", "/range", 200, 0, 13, port)

    def client(port):
        sock = connect(port)
        sock.sendall(request("/range"))
        while sock.recv(4096):
            pass
        tell("client", "/range", 200, 0, 13, port)

    both(listen(), server, client)


@shape
def another_descriptor():
    def server(sock):
        fds = [sock.fileno(), os.dup(sock.fileno()), os.dup2(sock.fileno(), 200)]
        for number in range(3):
            copy = socket.socket(fileno=fds[number])
            message(copy)
            other = socket.socket(fileno=fds[(number + 1) % 3])
            other.sendall(response())
            tell("server", f"/copies/{number}", 200, 0, 2, port_of(sock))
            copy.detach()
            other.detach()

    both(listen(), server, pipelined_asks([f"/copies/{number}" for number in range(3)]))


@shape
def ended_by_a_stranger():
    """A process that is not traced has the socket, too, and ends its sending direction."""

    def server(sock):
        head(sock)
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
        stranger("end", sock)
        tell("server", "/stranger-ends", 200, 0, 13, port_of(sock))

    def client(port):
        sock = connect(port)
        sock.sendall(request("/stranger-ends"))
        while sock.recv(4096):
            pass
        tell("client", "/stranger-ends", 200, 0, 13, port)

    both(listen(), server, client)


@shape
def read_by_a_stranger():
    """The first request is read by a process that is not traced, and answered by one that is."""

    def server(sock):
        stranger("read", sock)
        sock.sendall(response())
        serve(sock)

    both(listen(), server, pipelined_asks(["/stranger-reads/1", "/stranger-reads/2"]))


@shape
def answered_by_a_stranger():
    """Nobody has told of the first answer when the second one comes: whose it is, is not known."""

    def server(sock):
        message(sock)
        stranger("answer", sock)
        message(sock)
        sock.sendall(response())
        for number in (1, 2):
            lost(f"/stranger-answers/{number}")
            tell("server", f"/stranger-answers/{number}", "-", 0, "-", port_of(sock))

    both(listen(), server, pipelined_asks(["/stranger-answers/1", "/stranger-answers/2"]))


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


def main():
    global SHAPE
    # No child that would be followed: its parent ends at once.
    wait(fork(lambda: fork(be_strange)))
    ITSELF.close()
    print("ready", flush=True)
    sys.stdin.readline()
    for SHAPE in sys.argv[1:] or SHAPES:
        wait(fork(SHAPES[SHAPE]))
    os.write(1, b"done\n")
    STRANGER.close()
    sys.stdin.readline()


main()
