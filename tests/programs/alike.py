"""A server and its client in one process, by connections whose sockets are numbered alike: their cookies
(SO_COOKIE) have the same low 15 bits.

Prints `ready` and waits for a line; then asks `/N` over one connection after the other and over two in turn, with
some closed and one reset before the next is made; prints `done` and waits to be killed.
"""
import socket
import struct
import sys
import threading

SO_COOKIE = 57
ALIKE = (1 << 15) - 1
# Cookies are handed out to CPUs in batches, and others take some.
TRIES = 64 << 15


def cookie(of):
    return struct.unpack("Q", of.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))[0]


def alike(to):
    for _ in range(TRIES):
        fresh = socket.socket()
        if cookie(fresh) & ALIKE == to & ALIKE:
            fresh.connect(listener.getsockname())
            return fresh
        fresh.close()
    raise SystemExit("no socket is numbered like that")


def answer(connection):
    while head := connection.recv(65536):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        if head.startswith(b"GET /reset "):
            answered.wait()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            break
    connection.close()


def serve():
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def ask(by, path):
    by.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    seen = b""
    while not seen.endswith(b"ok"):
        seen += by.recv(65536)


answered = threading.Event()
listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, daemon=True).start()
print("ready", flush=True)
sys.stdin.readline()
first = socket.create_connection(listener.getsockname())
number = cookie(first)
ask(first, "/1")
second = alike(number)
ask(second, "/2")
ask(first, "/3")
ask(second, "/4")
first.close()
third = alike(number)
ask(third, "/5")
ask(second, "/6")
third.close()
reset = alike(number)
ask(reset, "/reset")
answered.set()
try:
    reset.recv(1)
except ConnectionResetError:
    pass
reset.close()
last = alike(number)
ask(last, "/7")
ask(second, "/8")
print("done", flush=True)
sys.stdin.readline()
