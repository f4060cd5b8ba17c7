"""What gunicorn's own script runs, `gunicorn gunicorn_app:app`; its first answer ends the server."""


def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]
