"""Stands between a client and rolegate and keeps what rolegate sent."""

import http.client
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWERS_WITHIN = 20


@dataclass(frozen=True)
class Answer:
    """One answer as rolegate sent it."""

    status: int
    headers: dict[str, str]
    body: bytes


class Relay:
    """Hands each request to the gate at this port of 127.0.0.1, with the client's own headers, and keeps the answers."""

    def __init__(self, gate: int) -> None:
        self.answers: list[Answer] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(handler) -> None:
                self._hand_on(handler, gate)

            do_POST = do_GET

            def log_message(handler, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.port = self._server.server_port

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _hand_on(self, handler: BaseHTTPRequestHandler, gate: int) -> None:
        asked = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        connection = http.client.HTTPConnection("127.0.0.1", gate, timeout=ANSWERS_WITHIN)
        connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
        for name, value in handler.headers.items():
            connection.putheader(name, value)
        connection.endheaders(asked or None)
        told = connection.getresponse()
        body = told.read()
        # Kept before the client has it, so that it is there when the client returns.
        self.answers.append(Answer(told.status, {name.lower(): value for name, value in told.getheaders()}, body))
        connection.close()

        handler.send_response_only(told.status, told.reason)
        for name, value in told.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                handler.send_header(name, value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
