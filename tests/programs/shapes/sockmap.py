"""Connections whose bytes the kernel hands from one socket to the other without TCP, as the data planes of service
meshes have it do (sockmap, `sk_msg`)."""
import ctypes
import os
import socket
import struct

from kit import LIBC, MACHINE, ask, connect, fork, head, listen, message, port_of, request, response, serve, shape, tell, wait

SYS_BPF = {"x86_64": 321}.get(MACHINE, 280)
MAP_CREATE, MAP_UPDATE, PROG_LOAD, PROG_ATTACH = 0, 2, 5, 8
SOCKMAP, SK_MSG, SK_MSG_VERDICT = 15, 16, 7


def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result = LIBC.syscall(ctypes.c_long(SYS_BPF), command, buffer, 128)
    assert result >= 0, os.strerror(ctypes.get_errno())
    return result


def instruction(code, registers, offset=0, value=0):
    return struct.pack("<BBhi", code, registers, offset, value)


def redirect(client, server):
    """From here on what one of them writes is in the other one's queue at once."""
    sockmap = bpf(MAP_CREATE, struct.pack("IIII", SOCKMAP, 4, 4, 2))
    program = b"".join([
        # r2 = the local port of who writes
        instruction(0x61, 0x12, 64),
        # r3 = the place of the client; of the server unless the server writes
        instruction(0xB7, 0x03, 0, 0),
        instruction(0x15, 0x02, 1, port_of(server)),
        instruction(0xB7, 0x03, 0, 1),
        # r2 = the map; r4 = BPF_F_INGRESS
        instruction(0x18, 0x12, 0, sockmap) + instruction(0, 0),
        instruction(0xB7, 0x04, 0, 1),
        # bpf_msg_redirect_map
        instruction(0x85, 0, 0, 60),
        instruction(0x95, 0),
    ])
    code, license = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"GPL")
    addresses = ctypes.addressof(code), ctypes.addressof(license)
    loaded = bpf(PROG_LOAD, struct.pack("IIQQ", SK_MSG, len(program) // 8, *addresses))
    bpf(PROG_ATTACH, struct.pack("IIII", sockmap, loaded, SK_MSG_VERDICT, 0))
    for place, sock in enumerate((client, server)):
        key, value = ctypes.c_uint32(place), ctypes.c_uint32(sock.fileno())
        addresses = ctypes.addressof(key), ctypes.addressof(value)
        bpf(MAP_UPDATE, struct.pack("IIQQQ", sockmap, 0, *addresses, 0))


def redirected(server, client):
    """As `both`, with what is between them redirected."""
    listener = listen()
    near = connect(port_of(listener))
    far, _ = listener.accept()
    redirect(near, far)
    pids = fork(lambda: (near.close(), server(far))), fork(lambda: (far.close(), client(near)))
    for sock in (near, far, listener):
        sock.close()
    wait(*pids)


@shape
def by_sockmap():
    body = bytes(range(256)) * 80

    def client(sock):
        for number in range(3):
            ask(sock, f"/sockmap/{number}", body[: number * 5000], "POST")

    redirected(lambda sock: serve(sock, 3, body), client)


@shape
def by_sockmap_in_pieces():
    """The first request is read in two pieces of which the first one is as long as the second request."""

    def server(sock):
        sizes = iter([len(request("/pieces/1"))])
        message(sock, lambda: sock.recv(next(sizes, 65536)))
        sock.sendall(response())
        tell("server", "/pieces/a-long-one", 200, 0, 2, port_of(sock))
        serve(sock, 2)

    def client(sock):
        ask(sock, "/pieces/a-long-one")
        for number in (1, 2):
            ask(sock, f"/pieces/{number}")

    redirected(server, client)


@shape
def by_sockmap_until_the_end():
    def server(sock):
        head(sock)
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
        port = port_of(sock)
        sock.close()
        tell("server", "/sockmap-end", 200, 0, 13, port)

    def client(sock):
        port = sock.getpeername()[1]
        sock.sendall(request("/sockmap-end"))
        while sock.recv(4096):
            pass
        tell("client", "/sockmap-end", 200, 0, 13, port)

    redirected(server, client)


@shape
def by_sockmap_from_the_middle_on():
    """The first requests go by TCP."""
    listener = listen()
    near = connect(port_of(listener))
    far, _ = listener.accept()
    mine, theirs = socket.socketpair()

    def server():
        serve(far, 2)
        redirect(near, far)
        near.close()
        theirs.send(b".")
        serve(far, 2)

    def client():
        far.close()
        for number in range(2):
            ask(near, f"/middle/{number}")
        assert mine.recv(1) == b"."
        for number in range(2, 4):
            ask(near, f"/middle/{number}")

    pids = fork(server), fork(client)
    for sock in (near, far, listener):
        sock.close()
    wait(*pids)
