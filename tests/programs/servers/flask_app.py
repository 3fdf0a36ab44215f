"""The scenes' endpoints as a Flask application, for gunicorn: `gunicorn flask_app:app`."""
import flask

app = flask.Flask(__name__)
BIG = bytes(1 << 20)


@app.get("/hello")
def hello():
    response = flask.Response("hello\n", mimetype="text/plain")
    response.set_etag("remora")
    return response.make_conditional(flask.request)


@app.get("/big")
def big():
    return flask.Response(BIG, mimetype="application/octet-stream")


@app.post("/echo")
def echo():
    return flask.Response(flask.request.get_data(), mimetype="application/octet-stream")


@app.get("/stream")
def stream():
    return flask.Response((f"part {number}\n" for number in range(3)), mimetype="text/plain")


@app.get("/flood")
def flood():
    return flask.Response((bytes(100_000) for _ in range(3)), mimetype="text/plain")


@app.get("/moved")
def moved():
    return flask.redirect("/hello")


@app.get("/none")
def none():
    return "", 204
