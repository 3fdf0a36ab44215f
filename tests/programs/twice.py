"""Serves one request, then becomes `service.py NAME` on the same port by exec: `twice.py PORT`.

Prints `first` when it listens and `second` when it listens again.
"""
import http.server
import os
import sys

PORT = int(sys.argv[1])
SECOND = len(sys.argv) > 2


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(202 if SECOND else 201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", PORT), Handler)
print("second" if SECOND else "first", flush=True)
server.handle_request()
server.server_close()
if SECOND:
    server = http.server.HTTPServer(("127.0.0.1", PORT), Handler)
    server.serve_forever()
os.execv(sys.executable, [sys.executable, sys.argv[0], sys.argv[1], "again"])
