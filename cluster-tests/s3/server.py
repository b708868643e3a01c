"""An S3 endpoint for tests: moto's, behind a lock, with faults switched over a control address.

moto checks a conditional put and stores in two steps without a lock, so two puts can both win: all
requests pass one at a time. Started as `server.py HOST BUCKET`, it prints `ready PORT`.

Control: `POST /_fault?mode=MODE[&method=PUT][&contains=TEXT][&key=KEY][&times=N]` puts a fault in
force for the next N matching requests (all, without `times`); `key` is the access key of who asks.
`POST /_fault?mode=none` ends it; `GET /_hits` says how often it struck. Modes:

  down           the connection is closed before anything was done
  error_after    the request is carried out, the answer is 500
  close_after    the request is carried out, the connection is closed without an answer
  conflict       nothing is done, the answer is 409
  hold           nothing is done until another fault replaces this one, or none; then it is carried out
  hold_after     the request is carried out; the answer waits as with hold
  unconditional  for good: conditional puts overwrite silently, as some look-alikes do
"""

import json
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
        one = {name: values[0] for name, values in parse_qs(query).items()}
        with self.lock:
            self.mode = one.get("mode", "none")
            self.method, self.contains = one.get("method", ""), one.get("contains", "")
            self.key = one.get("key", "")
            self.left, self.hits = int(one["times"]) if "times" in one else None, 0
            self.over.set()
            self.over = threading.Event()

    def struck(self, over):
        """Counts what was carried out first, unless its fault is over meanwhile."""
        with self.lock:
            self.hits += over is self.over

    def strike(self, environ):
        """The mode in force for this request, counted, and the end of it."""
        where = environ["PATH_INFO"] + "?" + environ.get("QUERY_STRING", "")
        with self.lock:
            hit = (
                self.mode != "none"
                and self.left != 0
                and self.method in ("", environ["REQUEST_METHOD"])
                and self.contains in where
                and (not self.key or f"Credential={self.key}/" in environ.get("HTTP_AUTHORIZATION", ""))
            )
            if not hit:
                return "none", None
            self.left = None if self.left is None else self.left - 1
            mode, over = self.mode, self.over
            # What is carried out first strikes when that is done.
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
            return answer(start_response, "200 OK", b"{}")
        if environ["PATH_INFO"] == "/_hits":
            return answer(start_response, "200 OK", json.dumps(self.faults.hits).encode())
        mode, over = self.faults.strike(environ)
        if mode == "down":
            return close(environ, start_response)
        if mode == "conflict":
            return answer(start_response, "409 Conflict", ERROR % b"ConditionalRequestConflict")
        if mode == "unconditional":
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if mode in ("error_after", "close_after"):
            self.carry_out(environ, lambda *ignored: None)
            if mode == "close_after":
                return close(environ, start_response)
            return answer(start_response, "500 Internal Server Error", ERROR % b"InternalError")
        answered = self.carry_out(environ, start_response)
        if mode == "hold_after":
            self.faults.struck(over)
            over.wait()
        return answered

    def carry_out(self, environ, start_response):
        with LOCK:
            return list(self.moto(environ, start_response))


def answer(start_response, status, body):
    start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def close(environ, start_response):
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return answer(start_response, "503 Service Unavailable", b"")


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code="-", size="-"):
        pass


def main():
    host, bucket = sys.argv[1], sys.argv[2]
    moto = DomainDispatcherApplication(create_backend_app)
    Client(moto).put("/" + bucket, base_url="http://s3.amazonaws.com/")
    server = make_server(host, 0, Endpoint(moto), threaded=True, request_handler=Quiet)
    print("ready", server.server_port, flush=True)
    server.serve_forever()


main()
