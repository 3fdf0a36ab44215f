"""A server that ends with an account: `sums.py`, one thread a connection.

Prints its port. Answers each line with itself reversed; `end` ends the program. It then prints
the digest of everything that it read and wrote on each connection, in the order of the digests,
writes one of all of them to standard error, and exits with a status that follows from it.
"""
import hashlib
import os
import socket
import sys
import threading

server = socket.create_server(("127.0.0.1", 0), backlog=128)
print(server.getsockname()[1], flush=True)
digests = []


def serve(connection):
    read, wrote = hashlib.sha256(), hashlib.sha256()
    with connection, connection.makefile("rb") as lines:
        for line in lines:
            read.update(line)
            answer = line[:-1][::-1] + b"\n"
            wrote.update(answer)
            connection.sendall(answer)
    digests.append(f"{read.hexdigest()} {wrote.hexdigest()}")


threads = []
while True:
    connection, _ = server.accept()
    first = connection.recv(3, socket.MSG_PEEK | socket.MSG_WAITALL)
    if first == b"end":
        break
    threads.append(threading.Thread(target=serve, args=(connection,)))
    threads[-1].start()
for thread in threads:
    thread.join()
for digest in sorted(digests):
    print(digest)
whole = hashlib.sha256("".join(sorted(digests)).encode())
print(whole.hexdigest(), file=sys.stderr)
sys.stdout.flush()
os._exit(1 + whole.digest()[0] % 100)
