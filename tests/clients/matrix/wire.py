"""Asks over HTTP/1.1 exactly as told: no target is tidied up, no header is added but Host, and nothing is followed."""

import http.client
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

ANSWERS_WITHIN = 20


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)


def ask(base: str, method: str, target: str, *, token: str | None = None, headers=(), body=None) -> Answer:
    """One request on a connection of its own; `body` is bytes, or something that becomes JSON."""
    address = urlsplit(base)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=ANSWERS_WITHIN)
    try:
        return asked(connection, method, target, token=token, headers=headers, body=body)
    finally:
        connection.close()


def asked(connection: http.client.HTTPConnection, method: str, target: str, *, token=None, headers=(), body=None) -> Answer:
    """The same on a connection that may have served other requests before."""
    connection.putrequest(method, target, skip_accept_encoding=True)
    if token is not None:
        connection.putheader("Authorization", f"Bearer {token}")
    for name, value in headers:
        connection.putheader(name, value)
    if body is not None:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
