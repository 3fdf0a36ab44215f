"""Exceptions of several kinds while a request is answered. Lines that begin `raised` say how often, and
what is to be told."""

import socket
import sys


class NotFound(Exception):
    pass


class Odd(KeyError):
    pass


class Text(str):
    pass


def passes_on(kind):
    try:
        work(kind)
    except LookupError:
        raise
    finally:
        sum(number for number in range(3))


def numbers():
    yield 1
    yield 2


def work(kind):
    if kind == 0:
        raise ValueError("plain text")
    if kind == 1:
        raise NotFound("no such thing")
    if kind == 2:
        raise Odd
    if kind == 3:
        [].pop()
    if kind == 4:
        {}["key"]
    if kind == 5:
        raise RuntimeError(7, "number first")
    if kind == 6:
        raise OSError("größer")
    if kind == 7:
        1 // 0
    if kind == 8:
        iterator = numbers()
        for _ in range(3):
            next(iterator)
    if kind == 9:
        None.attribute
    if kind == 10:
        raise OSError("ко 数")
    if kind == 11:
        raise OSError("ко 数𝔁")
    if kind == 12:
        raise OSError(Text("of a class of its own"))


listener = socket.create_server(("127.0.0.1", 0))
print("ready", flush=True)
print(listener.getsockname()[1], flush=True)
caught = 0
connection, _ = listener.accept()
connection.recv(4096)
for _ in range(3):
    for kind in range(14):
        try:
            passes_on(kind)
        except Exception:
            caught += 1
connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
connection.close()
print("caught", caught)
print("raised 3\tValueError\tplain text")
print("raised 3\tNotFound\tno such thing")
print("raised 3\tOdd\t")
print("raised 3\tIndexError\tpop from empty list")
print("raised 3\tKeyError\tkey")
print("raised 3\tRuntimeError\t")
print("raised 3\tOSError\tgrößer")
print("raised 3\tOSError\tко 数")
print("raised 3\tOSError\tко 数𝔁")
print("raised 3\tOSError\t")
text = "integer division or modulo by zero"
if sys.version_info >= (3, 14):
    text = "division by zero"
print("raised 3\tZeroDivisionError\t" + text)
print("raised 3\tAttributeError\t'NoneType' object has no attribute 'attribute'", flush=True)
raise SystemExit(5)
