"""A WSGI application that answers everything with 200 bytes."""

BODY = [b"x" * 200]
HEADERS = [("Content-Type", "application/octet-stream"), ("Content-Length", "200")]


def app(environ, start_response):
    start_response("200 OK", HEADERS)
    return BODY
