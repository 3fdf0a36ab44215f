"""Requests between processes that share, pass on and replace their sockets."""
import array
import ctypes
import fcntl
import os
import select
import socket
import struct

from kit import LIBC, MACHINE, ask, ask_to_the_end, be, both, connect, fork, head, listen, lost, message, pipelined_asks, port_of
from kit import request, response, serve, shape, stranger, tell, wait, within

CLONE_FILES, CLONE_NEWNET = 0x400, 0x40000000
SYS_CLONE, SYS_CLOSE_RANGE = {"x86_64": 56}.get(MACHINE, 220), 436
SYS_PIDFD_GETFD = 438


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
def other_network():
    """Sockets of the namespace that the process was in before, and of the one that it is in."""
    listener = listen()

    def server():
        connection, _ = listener.accept()
        serve(connection)
        assert LIBC.unshare(CLONE_NEWNET) == 0
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
        be(child)
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

    both(listen(), server, ask_to_the_end("/range", 13))


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

    both(listen(), server, ask_to_the_end("/stranger-ends", 13))


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
            lost("server", f"/stranger-answers/{number}")
            tell("server", f"/stranger-answers/{number}", "-", 0, "-", port_of(sock))

    both(listen(), server, pipelined_asks(["/stranger-answers/1", "/stranger-answers/2"]))




@shape
def passed_on_and_a_call():
    """Who has read a request and passed it on makes a call of its own while the other one answers."""
    listener, back = listen(), listen()
    mine, theirs = socket.socketpair()

    def dispatcher():
        for number in range(3):
            connection, _ = listener.accept()
            message(connection)
            tell("server", f"/dispatched/{number}", 200, 0, 2, port_of(connection))
            pass_on(mine, connection)
            sock = connect(port_of(back))
            ask(sock, f"/own-call/{number}")
            within(f"/own-call/{number}", "-")
            mine.send(b".")

    def worker():
        for _ in range(3):
            sock = take(theirs)
            # The call is over by now.
            assert theirs.recv(1) == b"."
            sock.sendall(response())

    def backend():
        for _ in range(3):
            connection, _ = back.accept()
            serve(connection)

    def client():
        for number in range(3):
            ask(connect(port_of(listener)), f"/dispatched/{number}")

    wait(*[fork(role) for role in (dispatcher, worker, backend, client)])
    listener.close()
    back.close()


@shape
def forked_to_answer():
    """A child is forked for a request that has been read; it asks another server and answers."""
    listener, back = listen(), listen()

    def server():
        for number in range(2):
            connection, _ = listener.accept()
            message(connection)
            tell("server", f"/forked/{number}", 200, 0, 2, port_of(connection))

            def child():
                ask(connect(port_of(back)), f"/for-it/{number}")
                within(f"/for-it/{number}", f"/forked/{number}")
                connection.sendall(response())

            pid = fork(child)
            connection.close()
            wait(pid)

    def backend():
        for _ in range(2):
            connection, _ = back.accept()
            serve(connection)

    def client():
        for number in range(2):
            ask(connect(port_of(listener)), f"/forked/{number}")

    wait(*[fork(role) for role in (server, backend, client)])
    listener.close()
    back.close()


@shape
def another_program_answers():
    """exec(2) between a request and its answer."""

    def server(sock):
        message(sock)
        tell("server", "/executed", 200, 0, 2, port_of(sock))
        os.dup2(sock.fileno(), 9)
        text = response().decode().replace("\r", "\\r").replace("\n", "\\n")
        os.execv("/bin/sh", ["sh", "-c", f"printf '{text}' >&9"])

    both(listen(), server, pipelined_asks(["/executed"]))


def unix(name):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0remora-{name}-{os.getpid()}")
    listener.listen()
    return listener


def asks_unix(listener, paths):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(listener.getsockname())
    for path in paths:
        ask(sock, path, port="-")


def serve_unix(sock):
    first, _ = message(sock)
    sock.sendall(response())
    tell("server", first.split(" ")[1], 200, 0, 2, "-")


@shape
def heir_of_a_unix_socket():
    """The process that has served the first request ends; its child serves the next ones."""
    listener = unix("heir")

    def first():
        connection, _ = listener.accept()
        serve_unix(connection)
        heirs, parents = os.pipe()

        def waits():
            os.close(parents)
            # Its parent is gone when nobody else has that end.
            assert os.read(heirs, 1) == b""
            serve_unix(connection)
            serve_unix(connection)

        fork(waits)

    pids = [fork(first), fork(lambda: asks_unix(listener, [f"/heir/{number}" for number in range(3)]))]
    listener.close()
    wait(*pids)


@shape
def heir_of_a_tcp_socket():
    def server(sock):
        serve(sock)
        heirs, parents = os.pipe()

        def waits():
            os.close(parents)
            assert os.read(heirs, 1) == b""
            serve(sock, 2)

        fork(waits)

    both(listen(), server, pipelined_asks([f"/tcp-heir/{number}" for number in range(3)]))


@shape
def threads_hand_on():
    """One thread accepts, one reads, one answers; the one that has read calls meanwhile."""
    import threading

    listener, back = listen(), listen()

    def server():
        connection, _ = listener.accept()
        for number in range(3):
            read, called = threading.Event(), threading.Event()

            def reads():
                message(connection)
                read.set()
                ask(connect(port_of(back)), f"/while/{number}")
                within(f"/while/{number}", f"/handed/{number}")
                called.set()

            def answers():
                read.wait()
                called.wait()
                connection.sendall(response())
                tell("server", f"/handed/{number}", 200, 0, 2, port_of(connection))

            threads = [threading.Thread(target=reads), threading.Thread(target=answers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def backend():
        for _ in range(3):
            connection, _ = back.accept()
            serve(connection)

    roles = (server, backend, lambda: pipelined_asks([f"/handed/{number}" for number in range(3)])(port_of(listener)))
    wait(*[fork(role) for role in roles])
    listener.close()
    back.close()


@shape
def taken_by_pidfd():
    """Another process takes the socket of a request out of the one that has read it, and answers."""
    listener = listen()
    mine, theirs = socket.socketpair()

    def reader():
        connection, _ = listener.accept()
        message(connection)
        tell("server", "/pidfd/1", 200, 0, 2, port_of(connection))
        mine.send(struct.pack("ii", os.getpid(), connection.fileno()))
        assert mine.recv(1) == b"."

    def writer():
        pid, fd = struct.unpack("ii", theirs.recv(8))
        pidfd = os.pidfd_open(pid)
        sock = socket.socket(fileno=LIBC.syscall(ctypes.c_long(SYS_PIDFD_GETFD), pidfd, fd, 0))
        theirs.send(b".")
        sock.sendall(response())
        serve(sock)

    pids = [fork(reader), fork(writer)]
    pids.append(fork(lambda: pipelined_asks(["/pidfd/1", "/pidfd/2"])(port_of(listener))))
    listener.close()
    wait(*pids)
