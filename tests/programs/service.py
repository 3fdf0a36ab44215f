"""An HTTP server, one thread a connection: `service.py NAME [PORT…]`.

Prints its port when it listens. Asks the server at each PORT for the same path, one after the other,
before it answers; `/fail` answers 500, `/slow` waits for a line that never comes and is cut by its
client. Listens where HOST and PORT say, else on any port of this host.
"""
import http.client
import http.server
import os
import sys

NAME, BACKENDS = sys.argv[1], [int(port) for port in sys.argv[2:]]
ADDRESS = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", 0)))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("Content-Length", 0))
        body = NAME.encode() + self.rfile.read(length)
        for port in BACKENDS:
            call = http.client.HTTPConnection("127.0.0.1", port)
            call.request("GET", self.path)
            body += call.getresponse().read()
            call.close()
        self.send_response(500 if self.path.startswith("/fail") else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_HEAD = answer

    def log_message(self, *_):
        pass


# The default of 5 makes clients wait a second for a lost SYN.
http.server.ThreadingHTTPServer.request_queue_size = 1024
server = http.server.ThreadingHTTPServer(ADDRESS, Handler)
print(server.server_port, flush=True)
server.serve_forever()
