"""HTTP over a Unix stream: `unix.py server PATH` or `unix.py client PATH`.

The server prints `ready`; the client prints `ready`, waits for a line on a FIFO `PATH.go`, asks once
and prints what it got.
"""
import http.client
import http.server
import socket
import socketserver
import sys

ROLE, PATH = sys.argv[1:]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"unix")

    def address_string(self):
        return "unix"

    def log_message(self, *_):
        pass


if ROLE == "server":
    with socketserver.UnixStreamServer(PATH, Handler) as server:
        print("ready", flush=True)
        server.serve_forever()

print("ready", flush=True)
with open(PATH + ".go") as go:
    go.read()
call = http.client.HTTPConnection("localhost")
call.sock = socket.socket(socket.AF_UNIX)
call.sock.connect(PATH)
call.request("GET", "/unix")
print(call.getresponse().read().decode(), flush=True)
