"""A server that may do nothing but read(2) and write(2): `strict.py`, for one connection.

Prints its port, accepts, enters seccomp's strict mode (prctl(2), PR_SET_SECCOMP) and answers each
read with one response. Exits with status 3 by exit(2) at the stream's end, as anything else that it
might call would kill it.
"""
import ctypes
import os
import socket

PR_SET_SECCOMP, SECCOMP_MODE_STRICT, SYS_EXIT = 22, 1, {"x86_64": 60}.get(os.uname().machine, 93)
libc = ctypes.CDLL(None)
exit_thread = libc.syscall
exit_thread.argtypes = [ctypes.c_long, ctypes.c_long]
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
connection, _ = server.accept()
descriptor = connection.fileno()
answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstrict"
print("strict", flush=True)
libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0)
while os.read(descriptor, 4096):
    os.write(descriptor, answer)
exit_thread(SYS_EXIT, 3)
