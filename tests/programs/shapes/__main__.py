"""Requests in rare system calls and between processes of rare shapes: `shapes SHAPE…`, or all of them.

Prints `ready`, waits for a line, plays the shapes one after the other and prints `done`. Every shape has a server and a
client, each a process of its own that is forked after that line; a stranger was forked before it. They tell what
they did, a line a request: `told SHAPE KIND PID METHOD PATH STATUS SENT/RECEIVED PORT`, `-` for what cannot be known.
A line `lost SHAPE SOURCE KIND PATH` says that something of the request is moved by somebody whom nobody watches, or in
a way that this source (or `any`) does not see, and `within SHAPE PATH SERVER` that it was made for the sake of the one for `SERVER`, if anything may be said of that.
"""
import os
import sys

import calls
import kit
import messages
import processes
import sockmap


def main():
    # No child that would be followed: its parent ends at once.
    kit.wait(kit.fork(lambda: kit.fork(kit.be_strange)))
    kit.ITSELF.close()
    print("ready", flush=True)
    sys.stdin.readline()
    for kit.SHAPE in sys.argv[1:] or kit.SHAPES:
        kit.wait(kit.fork(kit.SHAPES[kit.SHAPE]))
    os.write(1, b"done\n")
    kit.STRANGER.close()
    sys.stdin.readline()


main()
