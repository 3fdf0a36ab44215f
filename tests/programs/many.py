"""An HTTP server for thousands of connections at a time, in one thread: `many.py`.

Prints its port. Answers every head that arrives whole with its request's target.
"""
import resource
import selectors
import socket

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
server = socket.create_server(("127.0.0.1", 0), backlog=1024)
print(server.getsockname()[1], flush=True)
ready = selectors.DefaultSelector()
ready.register(server, selectors.EVENT_READ)
seen = {}
while True:
    for key, _ in ready.select():
        if key.fileobj is server:
            connection, _ = server.accept()
            ready.register(connection, selectors.EVENT_READ)
            seen[connection] = b""
            continue
        connection = key.fileobj
        read = connection.recv(65536)
        if not read:
            ready.unregister(connection)
            del seen[connection]
            connection.close()
            continue
        seen[connection] += read
        while b"\r\n\r\n" in seen[connection]:
            head, seen[connection] = seen[connection].split(b"\r\n\r\n", 1)
            body = head.split(b" ")[1]
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
