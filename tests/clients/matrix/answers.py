"""How answers look here: rolegate's refusals byte for byte, and the homeserver's own without what moves with the clock."""

from wire import Answer

DENIED = b'{"errcode":"M_FORBIDDEN","error":"You are not allowed to see this."}'
NO_TOKEN = b'{"errcode":"M_MISSING_TOKEN","error":"Missing access token"}'
# `soft_logout` keeps a client's keys: whether the session is gone for good only the server knows.
REFUSED_TOKEN = b'{"errcode":"M_UNKNOWN_TOKEN","error":"Invalid access token passed.","soft_logout":true}'

# What Synapse puts on every answer, so that a script in a browser may read it.
ALLOWS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, HEAD, POST, PUT, DELETE, OPTIONS",
    "access-control-allow-headers": "X-Requested-With, Content-Type, Authorization, Date",
}


def content(answer: Answer):
    """The JSON of an answer without the ages of events, which grow between two calls, and with events in one order: that
    of a former member's state differs between Synapse's first reading of it and the later ones."""
    return _settled(answer.json())


def is_refusal(answer: Answer, status: int, body: bytes) -> None:
    """Demands a refusal of rolegate's own, readable to everybody who must read it."""
    assert (answer.status, answer.body) == (status, body)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(body))
    assert answer.headers["cache-control"] == "no-store"
    assert len(answer.headers["x-request-id"]) == 26
    assert ALLOWS.items() <= answer.headers.items()


def without_id(answer: Answer) -> tuple:
    """All that an asker can tell two refusals apart by, but the decision's id and the time of day."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")}
    return answer.status, headers, answer.body


def _settled(value):
    if isinstance(value, dict):
        return {name: _settled(inner) for name, inner in value.items() if name != "age"}
    if isinstance(value, list):
        settled = [_settled(inner) for inner in value]
        events = all(isinstance(inner, dict) and "event_id" in inner for inner in settled)
        return sorted(settled, key=lambda event: event["event_id"]) if events else settled
    return value
