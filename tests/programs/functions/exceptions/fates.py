"""Requests one after another, each with exceptions: some that are caught, of which nothing is said, some
that end a thread or that nobody can catch, and one that ends the program. Lines that begin "fate" say how
many there are with a message, and what becomes of them."""

import os
import socket
import sys
import threading


def work(what):
    raise RuntimeError(what)


class Goes:
    def __del__(self):
        work("nowhere to go")


def shows():
    try:
        work("shown")
    except RuntimeError:
        sys.excepthook(*sys.exc_info())


def quietly(does):
    # What Python writes then has addresses in it.
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    does()
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nothing)


def ends(connection, what):
    connection.recv(4096)
    what()


def in_thread(what):
    connection, _ = listener.accept()
    thread = threading.Thread(target=ends, args=(connection, what))
    del connection
    thread.start()
    thread.join()


# What writes tracebacks may have to be imported first, which raises a lot.
quietly(shows)

listener = socket.create_server(("127.0.0.1", 0))
print("ready", flush=True)
print(listener.getsockname()[1], flush=True)
print("fate 3\tcaught\t-")
print("fate 1\tshown\t-")
print("fate 1\tshown at the top\t-")
print("fate 1\tnowhere to go\tnot caught")
print("fate 1\tof a thread\tnot caught")
print("fate 1\tpop from empty list\tnot caught")
print("fate 1\tin between\t-")
print("fate 1\tthe end\tnot caught", flush=True)

connection, _ = listener.accept()
connection.recv(4096)
for _ in range(3):
    try:
        work("caught")
    except RuntimeError:
        pass
shows()
try:
    work("shown at the top")
except RuntimeError:
    sys.excepthook(*sys.exc_info())
quietly(lambda: Goes() and None)
connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
connection.close()

in_thread(lambda: work("of a thread"))
in_thread([].pop)

connection, _ = listener.accept()
connection.recv(4096)
try:
    work("the end")
finally:
    try:
        work("in between")
    except RuntimeError:
        pass
