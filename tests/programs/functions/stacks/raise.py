"""Raises while a request is answered, and says before itself who has called: a line that begins `stack`,
with the functions from the outermost inward, each as its file's name, its line and its name."""

import contextlib
import os
import socket
import sys


def say():
    frame = sys._getframe(1)
    frames = []
    while frame:
        code = frame.f_code
        # What it is a part of is known from 3.11 on.
        name = getattr(code, "co_qualname", code.co_name)
        frames.append(f"{os.path.basename(code.co_filename)}:{frame.f_lineno}:{name}")
        frame = frame.f_back
    print("stack", " ".join(reversed(frames)))
    return "said"


class Thing:
    def method(self, deep):
        if deep:
            return (
                self.method(
                    deep - 1
                )
            )
        x = 1
        raise ValueError(say())

    @property
    def attribute(self):
        try:
            raise KeyError(say())
        except KeyError:
            raise LookupError(say())


def generator():
    yield 1
    yield Thing().method(2)


def in_c(key):
    return {}[say()] if key else key


def far():
    # The instruction lies further into the code than what is read of the table of its lines at once.
    total = 0
    total += 1; total += 2; total += 3; total += 4; total += 5; total += 6; total += 7; total += 8
    total += 1; total += 2; total += 3; total += 4; total += 5; total += 6; total += 7; total += 8
    total += 1; total += 2; total += 3; total += 4; total += 5; total += 6; total += 7; total += 8

    total += 1
    raise ValueError(say())


def größer():
    def ко():
        def 数𝔁():
            raise LookupError(say())

        数𝔁()

    ко()


def around():
    with contextlib.suppress(LookupError):
        raise LookupError(say())
    try:
        Thing().method(1)
    finally:
        # The exception goes through here, and on.
        len([])


def work(kind):
    if kind == 0:
        Thing().method(0)
    if kind == 1:
        for _ in generator():
            pass
    if kind == 2:
        Thing().attribute
    if kind == 3:
        sorted([1, 2], key=in_c)
    if kind == 4:
        (lambda: [Thing().method(n) for n in range(2)])()
    if kind == 5:
        far()
    if kind == 6:
        exec("# a line\n" * 300 + "def made():\n\n  Thing().method(1)\nmade()", globals())
    if kind == 7:
        größer()
    if kind == 8:
        around()


listener = socket.create_server(("127.0.0.1", 0))
print("ready", flush=True)
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
connection.recv(4096)
for kind in range(9):
    try:
        work(kind)
    except (ValueError, LookupError):
        pass
connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
