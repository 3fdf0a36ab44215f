"""Requests that are moved by rare system calls."""
import ctypes
import os
import socket
import struct
import subprocess
import tempfile

from kit import IPPROTO_MPTCP, LIBC, ask, ask_to_the_end, both, connect, fork, head, listen, lost, message, pipelined_asks
from kit import port_of, request, response, serve, shape, tell, wait


def post_and_ask(path):
    """A client that sends a body, and asks once more."""

    def client(port):
        sock = connect(port)
        ask(sock, f"{path}/0", BODY, "POST")
        ask(sock, f"{path}/1")

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

    both(listen(), server, post_and_ask("/splice-from"))


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

    both(listen(), server, ask_to_the_end("/half", 13, is_half_closed=True))


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

    both(listen(), server, post_and_ask("/thrown"))


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




def splice_out(sock, left):
    """Moves bytes from a socket through a pipe, which no source sees."""
    out, into = os.pipe()
    while left:
        moved = os.splice(sock.fileno(), into, left)
        left -= moved
        while moved:
            moved -= len(os.read(out, moved))


@shape
def splice_from_an_answer():
    """That it was whole is known where splice(2) is seen, or when another one is read."""

    def client(port):
        sock = connect(port)
        for number in range(2):
            sock.sendall(request(f"/spliced/{number}"))
            head(sock, lambda: sock.recv(1))
            splice_out(sock, len(BODY))
            lost("client", f"/spliced/{number}", "socket")
            tell("client", f"/spliced/{number}", 200, 0, len(BODY), port)
        lost("client", "/spliced/2", "socket")
        ask(sock, "/spliced/2")

    both(listen(), lambda sock: (serve(sock, 2, BODY), serve(sock)), client)

def abort(sock):
    """Has the kernel give up a connection, as `ss --kill` does."""
    near, far = sock.getsockname()[1], sock.getpeername()[1]
    kill = ["ss", "--kill", "--tcp", "--no-header", "sport", "=", f":{near}", "and", "dport", "=", f":{far}"]
    subprocess.run(kill, check=True, stdout=subprocess.DEVNULL)


@shape
def given_up_by_the_kernel_unanswered():
    def server(sock):
        port = port_of(sock)
        head(sock)
        abort(sock)
        try:
            sock.sendall(response())
        except OSError:
            pass
        tell("server", "/given-up", "-", 0, "-", port)

    def client(port):
        sock = connect(port)
        sock.sendall(request("/given-up"))
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass
        tell("client", "/given-up", "-", 0, "-", port)

    both(listen(), server, client)


@shape
def given_up_by_the_kernel_half_answered():
    """What is there of an answer whose length is known is no whole one."""

    def server(sock):
        port = port_of(sock)
        head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        try:
            sock.recv(1)
        except OSError:
            pass
        tell("server", "/half-given", 200, 0, 4, port)

    def client(port):
        sock = connect(port)
        sock.sendall(request("/half-given"))
        seen = b""
        while not seen.endswith(b"half"):
            seen += sock.recv(4096)
        abort(sock)
        try:
            sock.recv(1)
        except OSError:
            pass
        tell("client", "/half-given", 200, 0, 4, port)

    both(listen(), server, client)


SO_ZEROCOPY, MSG_ZEROCOPY, TCP_ZEROCOPY_RECEIVE = 60, 0x4000000, 35


@shape
def sent_without_a_copy():
    def server(sock):
        sock.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        for number in range(2):
            message(sock)
            assert sock.send(response(BODY), MSG_ZEROCOPY) == len(response(BODY))
            tell("server", f"/zerocopy/{number}", 200, 0, len(BODY), port_of(sock))
            # What the kernel tells of it, by a queue that is none of the stream's.
            while True:
                try:
                    sock.recvmsg(1, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
                    break
                except BlockingIOError:
                    pass

    both(listen(), server, pipelined_asks(["/zerocopy/0", "/zerocopy/1"]))


@shape
def read_without_a_copy():
    """A body that getsockopt(2) hands out is seen by no source."""

    def server(sock):
        head(sock, lambda: sock.recv(1))
        left, size = len(BODY), 1 << 16
        LIBC.mmap.restype = ctypes.c_void_p
        place = LIBC.mmap(None, ctypes.c_size_t(size), 1, 1, sock.fileno(), ctypes.c_long(0))
        copy = ctypes.create_string_buffer(size)
        while left:
            # What does not fill pages is copied.
            asked = struct.pack("QIIIiQiI", place, size, 0, 0, 0, ctypes.addressof(copy), size, 0)
            result, length = ctypes.create_string_buffer(asked, 64), ctypes.c_uint32(len(asked))
            option = sock.fileno(), socket.IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE
            assert LIBC.getsockopt(*option, result, ctypes.byref(length)) == 0
            _, mapped, _, _, _, _, copied, _ = struct.unpack_from("QIIIiQiI", result.raw)
            left -= mapped + max(copied, 0)
        sock.sendall(response())
        tell("server", "/mapped/0", 200, len(BODY), 2, port_of(sock), method="POST")
        serve(sock)

    both(listen(), server, post_and_ask("/mapped"))


@shape
def a_listener_without_a_queue():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    both(listener, lambda sock: serve(sock, 2), pipelined_asks(["/no-queue/0", "/no-queue/1"]))
