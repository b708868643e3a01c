"""S3 endpoint for tests: moto behind a lock, with faults that a control URL injects.

moto checks a conditional put and stores the object in two steps without a lock, so two puts can both
succeed. The lock serializes all requests. `server.py HOST BUCKET` prints `ready PORT`.

Control: `POST /_fault?mode=MODE[&method=PUT][&contains=TEXT][&key=KEY][&times=N]` injects a fault into
the next N matching requests (all, without `times`); `key` is the access key of the caller.
`POST /_fault?mode=none` ends it; `GET /_hits` returns the number of affected requests. Modes:

  down           closes the connection without processing the request
  error_after    processes the request and responds with 500
  close_after    processes the request and closes the connection without a response
  conflict       responds with 409 without processing the request
  hold           processes the request when another fault, or none, replaces this one
  hold_after     processes the request; the response waits as with hold
  unconditional  conditional puts overwrite silently, as some S3-compatible stores do
"""

import json
import os
import socket
import sys
import threading
from urllib.parse import parse_qs

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import Client

LOCK = threading.Lock()
ERROR = b'<?xml version="1.0"?><Error><Code>%s</Code><Message>made by the test</Message></Error>'


class Faults:
    def __init__(self):
        self.lock = threading.Lock()
        self.mode, self.method, self.contains, self.key = "none", "", "", ""
        self.left, self.hits = None, 0
        self.over = threading.Event()

    def set(self, query):
        fields = {name: values[0] for name, values in parse_qs(query).items()}
        with self.lock:
            self.mode = fields.get("mode", "none")
            self.method = fields.get("method", "")
            self.contains = fields.get("contains", "")
            self.key = fields.get("key", "")
            self.left = int(fields["times"]) if "times" in fields else None
            self.hits = 0
            self.over.set()
            self.over = threading.Event()

    def count_processed(self, over):
        """Counts a processed request, unless its fault has been replaced since."""
        with self.lock:
            self.hits += over is self.over

    def apply(self, environ):
        """Returns the mode for this request, which is counted, and the event that ends the fault."""
        target = environ["PATH_INFO"] + "?" + environ.get("QUERY_STRING", "")
        with self.lock:
            hit = (
                self.mode != "none"
                and self.left != 0
                and self.method in ("", environ["REQUEST_METHOD"])
                and self.contains in target
                and (not self.key or f"Credential={self.key}/" in environ.get("HTTP_AUTHORIZATION", ""))
            )
            if not hit:
                return "none", None
            self.left = None if self.left is None else self.left - 1
            mode, over = self.mode, self.over
            # A request that is processed first is counted after that.
            self.hits += mode != "hold_after"
        if mode == "hold":
            over.wait()
        return mode, over


class Endpoint:
    def __init__(self, moto):
        self.moto, self.faults = moto, Faults()

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/_fault":
            self.faults.set(environ.get("QUERY_STRING", ""))
            return respond(start_response, "200 OK", b"{}")
        if environ["PATH_INFO"] == "/_hits":
            return respond(start_response, "200 OK", json.dumps(self.faults.hits).encode())
        mode, over = self.faults.apply(environ)
        if mode == "down":
            return close(environ, start_response)
        if mode == "conflict":
            return respond(start_response, "409 Conflict", ERROR % b"ConditionalRequestConflict")
        if mode == "unconditional":
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if mode in ("error_after", "close_after"):
            self.process(environ, lambda *ignored: None)
            if mode == "close_after":
                return close(environ, start_response)
            return respond(start_response, "500 Internal Server Error", ERROR % b"InternalError")
        response = self.process(environ, start_response)
        if mode == "hold_after":
            self.faults.count_processed(over)
            over.wait()
        return response

    def process(self, environ, start_response):
        with LOCK:
            return list(self.moto(environ, start_response))


def respond(start_response, status, body):
    start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def close(environ, start_response):
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return respond(start_response, "503 Service Unavailable", b"")


class QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code="-", size="-"):
        pass


def main():
    host, bucket = sys.argv[1], sys.argv[2]
    # moto keeps larger objects, by default those above 5 MiB, in files below /tmp: on a busy disk the
    # completion of a large upload then outlasts the timeout of its caller.
    os.environ.setdefault("MOTO_S3_DEFAULT_KEY_BUFFER_SIZE", str(1 << 30))
    moto = DomainDispatcherApplication(create_backend_app)
    Client(moto).put("/" + bucket, base_url="http://s3.amazonaws.com/")
    server = make_server(host, 0, Endpoint(moto), threaded=True, request_handler=QuietHandler)
    print("ready", server.server_port, flush=True)
    server.serve_forever()


main()
