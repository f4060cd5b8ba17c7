"""A collector of our own: takes what OTLP's service takes, by the protocol's own classes, and answers as a test tells it to."""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

Answer = Callable[["Handler", int], None]  # what it does with its n-th request, from 0 on


class Handler(BaseHTTPRequestHandler):
    """Takes a request and answers it."""

    server: Collector

    def do_POST(self) -> None:
        """Keep the spans that came, then answer."""
        body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Content-Type"] == "application/x-protobuf"
        number = self.server.requests
        self.server.requests += 1
        self.server.paths.add(self.path)
        self.server.answer(self, number)
        self.server.spans.MergeFromString(body)

    def reply(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """Answer with this."""
        self.send_response_only(status)
        told = {"Content-Type": "application/x-protobuf", "Date": self.date_time_string(), "Content-Length": str(len(body))}
        for name, value in (told | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing on stderr."""


class Collector(ThreadingHTTPServer):
    """Listens on a port of this machine until it is closed; `spans` is all that came."""

    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.spans = ExportTraceServiceRequest()
        self.requests, self.paths = 0, set()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *args: Any) -> None:
        """A connection that a test breaks off is no error."""


@contextlib.contextmanager
def collector(answer: Answer = lambda handler, number: handler.reply()) -> Iterator[Collector]:
    """A collector that answers so; all is well unless a test says otherwise."""
    with Collector(answer) as made:
        serving = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
        serving.start()
        yield made
        made.shutdown()
        serving.join()


def refuses(status: int, after: int = 0, **headers: str) -> Answer:
    """Answer with this status from the request `after` on."""
    return lambda handler, number: handler.reply(status if number >= after else 200, **headers)


def rejects(spans: int, why: str) -> Answer:
    """Take all but some spans of each request, and say why."""
    told = ExportTraceServiceResponse()
    told.partial_success.rejected_spans, told.partial_success.error_message = spans, why
    return lambda handler, number: handler.reply(body=told.SerializeToString())


def is_silent(handler: Handler, number: int) -> None:
    """Answer nothing, for longer than anybody should wait."""
    time.sleep(5)


def drips(handler: Handler, number: int) -> None:
    """Answer a byte at a time, so that each read by itself comes in time."""
    with contextlib.suppress(OSError):
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.1)


def dies(handler: Handler, number: int) -> None:
    """Take a request; before the next is answered, break off and listen no more."""
    if number == 0:
        handler.reply()
        return
    handler.server.socket.close()
    handler.connection.close()
