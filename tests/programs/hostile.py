"""Two programs that talk rubbish: `hostile.py server SEED`, `hostile.py client SEED PORT`.

Each side takes valid HTTP/1 messages and spoils them: flips bits, cuts, repeats and splices pieces,
claims absurd lengths, adds NULs, headers of 64 KiB and what is no HTTP at all. The client is told by
a number on standard input how many messages to send, and prints that many when it has; it makes a
connection for some tens of them. The server prints its port and answers whatever it reads.
"""
import random
import socket
import struct
import sys

role = sys.argv[1]
numbers = random.Random(f"{role} {sys.argv[2]}")
REQUESTS = [
    b"GET /a?b=c HTTP/1.1\r\nHost: h\r\nUser-Agent: x\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\nhello world",
    b"PUT /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: t\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n",
    b"GET /u HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"GET /t HTTP/1.1\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
    b"POST /e HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9999\r\n\r\n",
    b"HTTP/1.0 500 Oops\r\n\r\nto the end",
    b"HTTP/1.1 206 Partial\r\nContent-Length: 3\r\nContent-Range: bytes 0-2/9\r\n\r\nabc",
]
LENGTHS = [b"-1", b"0", b"18446744073709551615", b"18446744073709551616", b"9" * 400, b"1e9", b"0x10",
           b"5, 5", b"5, 6", b"", b" 7 ", b"+3", b"9223372036854775807"]
SIZES = [b"-5", b"ffffffffffffffff", b"10000000000000000", b"f" * 300, b"", b"0x5", b"5 ;", b"00000005",
         b"7fffffffffffffff", b"\0"]
STARTS = {"client": REQUESTS, "server": RESPONSES}[role]


def flip(message):
    changed = bytearray(message)
    for _ in range(numbers.randrange(1, 9)):
        changed[numbers.randrange(len(changed))] ^= 1 << numbers.randrange(8)
    return bytes(changed)


def piece(message):
    start = numbers.randrange(len(message))
    return message[start:start + numbers.randrange(1, 64)]


def insert(message, what):
    at = numbers.randrange(len(message) + 1)
    return message[:at] + what + message[at:]


def header(message, line):
    return message.replace(b"\r\n", b"\r\n" + line + b"\r\n", 1)


SPOIL = [
    lambda message: message,
    flip,
    lambda message: message[:numbers.randrange(1, len(message) + 1)],
    lambda message: message[numbers.randrange(len(message)):],
    lambda message: insert(message, piece(message)),
    lambda message: insert(message, piece(numbers.choice(REQUESTS + RESPONSES))),
    lambda message: header(message, b"Content-Length: " + numbers.choice(LENGTHS)),
    lambda message: header(message, b"Transfer-Encoding: " + numbers.choice([b"chunked", b"gzip, chunked", b"x"])),
    lambda message: message.replace(b"\r\n5", b"\r\n" + numbers.choice(SIZES), 1),
    lambda message: insert(message, b"\0" * numbers.randrange(1, 32)),
    lambda message: message.replace(b"\r\n", numbers.choice([b"\n", b"\r", b"\r\r\n", b"\r\n "])),
    lambda message: message + numbers.randbytes(numbers.randrange(1, 512)),
]


def message():
    spoiled = numbers.choice(STARTS)
    for _ in range(numbers.randrange(4)):
        spoiled = numbers.choice(SPOIL)(spoiled) or b"\n"
    if numbers.randrange(200) == 0:
        spoiled = header(spoiled, b"X: " + b"x" * 65536)
    return spoiled


def some(most):
    """Up to `most` messages, and how they are cut into writes."""
    batch = [message() for _ in range(min(most, numbers.randrange(1, 5)))]
    whole = b"".join(batch)
    cut = numbers.randrange(len(whole)) if numbers.randrange(3) == 0 else 0
    return len(batch), [part for part in (whole[:cut], whole[cut:]) if part]


def talk(connection, parts):
    for part in parts:
        connection.sendall(part)


def serve(connection):
    while connection.recv(1 << 20):
        talk(connection, some(4)[1])


def ask(port, count):
    """One connection; the server answers whatever it reads, and that is not counted."""
    connection = socket.create_connection(("127.0.0.1", port))
    sent = 0
    try:
        while sent < count:
            batch, parts = some(count - sent)
            sent += batch
            talk(connection, parts)
            connection.recv(1 << 20)
    except ConnectionError:
        pass
    if numbers.randrange(4) == 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    return sent


if role == "server":
    server = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(server.getsockname()[1], flush=True)
    while True:
        connection, _ = server.accept()
        try:
            serve(connection)
        except ConnectionError:
            pass
        connection.close()
else:
    print("ready", flush=True)
    for line in sys.stdin:
        sent = 0
        while sent < int(line):
            sent += ask(int(sys.argv[3]), min(int(line) - sent, numbers.randrange(1, 60)))
        print(sent, flush=True)
