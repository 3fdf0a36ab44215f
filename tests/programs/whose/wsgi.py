"""What `whose` asks, as a WSGI application for gunicorn: threads, or what takes their place. BACK is the port of what
it asks."""
import concurrent.futures
import http.client
import os
import threading
import time

BACK = int(os.environ["BACK"])
POLLERS = []
LOCK = threading.Lock()


def ask(path):
    call = http.client.HTTPConnection("127.0.0.1", BACK)
    call.request("GET", path, headers={"Connection": "close"})
    call.getresponse().read()
    call.close()


def poll():
    number = 0
    while True:
        ask(f"/poll/{number}")
        time.sleep(0.005)
        number += 1


class Answer:
    """An answer, and what is done when it has been given."""

    def __init__(self, path):
        self.path = path

    def __iter__(self):
        return iter([b"ok"])

    def close(self):
        if self.path.startswith("/after"):
            ask(self.path)


def app(environ, start_response):
    path = environ["PATH_INFO"]
    kind = path.split("/")[1]
    if kind == "each":
        for _ in range(2):
            time.sleep(0.002)
            ask(path)
    elif kind == "together":
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            list(pool.map(ask, [path] * 3))
    elif kind == "slow":
        with LOCK:
            if not POLLERS:
                POLLERS.append(threading.Thread(target=poll, daemon=True))
                POLLERS[0].start()
        time.sleep(0.03)
    start_response("200 OK", [("Content-Length", "2")])
    return Answer(path)
