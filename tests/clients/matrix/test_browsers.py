"""What a web client in a browser meets: preflights go through, and every refusal may be read by its script."""

import http.client
from urllib.parse import urlsplit

import pytest
from answers import ALLOWS, DENIED, is_refusal
from town import CLIENT, segment
from wire import asked

ORIGIN = ("Origin", "https://app.example")


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_a_preflight_is_answered_by_synapse_and_is_no_decision(town, gate, method):
    room = segment(town.rooms["private 12"])
    asks = [ORIGIN, ("Access-Control-Request-Method", method), ("Access-Control-Request-Headers", "authorization")]
    for target in (
        f"{CLIENT}/rooms/{room}/joined_members",
        f"{CLIENT}/rooms/{room}/state/m.room.power_levels",
        f"{CLIENT}/user_directory/search",
        "/_synapse/admin/v2/users",
        f"{CLIENT}/sync",
    ):
        with gate.audit.none():
            seen = gate.ask("OPTIONS", target, headers=asks)
        direct = town.ask("OPTIONS", target, headers=asks)
        assert (seen.status, seen.body) == (direct.status, direct.body) == (204, b"")
        of_cors = {name: value for name, value in direct.headers.items() if name.startswith("access-control-")}
        assert ALLOWS.items() <= of_cors.items()
        assert of_cors.items() <= seen.headers.items()


def test_an_options_that_is_no_preflight_is_refused_on_a_guarded_path(town, gate, unmatched):
    target = f"{CLIENT}/rooms/{segment(town.rooms['private 12'])}/joined_members"
    with unmatched("method_not_declared"):
        refused = gate.ask("OPTIONS", target, town["carol"])
    is_refusal(refused, 405, b'{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}')


def test_an_answer_through_the_gate_may_be_read_by_a_script(town, gate, guarded):
    target = f"{CLIENT}/rooms/{segment(town.rooms['private 12'])}/joined_members"
    with guarded("rooms.joined_members", "permit"):
        seen = gate.ask("GET", target, town["carol"], headers=[ORIGIN])
    direct = town.ask("GET", target, town["carol"], headers=[ORIGIN])
    of_cors = {name: value for name, value in direct.headers.items() if name.startswith("access-control-")}
    assert seen.status == 200
    assert of_cors.items() <= seen.headers.items()


@pytest.mark.parametrize(
    ("status", "path", "person"),
    [
        (400, "/rooms/{room}/members?nothing=1", "carol"),
        (400, "/rooms/{room}/members?membership=join&membership=leave", "carol"),
        (400, "//rooms/{room}/members", "carol"),
        (401, "/rooms/{room}/members", None),
        (403, "/rooms/{room}/members", "mallory"),
    ],
)
def test_every_refusal_may_be_read_by_a_script_and_names_its_decision(town, gate, status, path, person):
    before = len(gate.audit.decisions())
    target = CLIENT + path.format(room=segment(town.rooms["private 12"]))
    refused = gate.ask("GET", target, town[person] if person else None, headers=[ORIGIN])
    assert refused.status == status, refused
    assert list(refused.json()) == ["errcode", "error"]
    assert ALLOWS.items() <= refused.headers.items()
    assert "x-request-id" in refused.headers["access-control-expose-headers"].lower()
    (record,) = gate.audit.decisions()[before:]
    assert record["id"] == refused.headers["x-request-id"]


def test_a_connection_lives_on_after_a_refusal(town, gate, guarded):
    target = f"{CLIENT}/rooms/{segment(town.rooms['private 12'])}/joined_members"
    address = urlsplit(gate.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
    try:
        connection.connect()
        socket = connection.sock
        for _ in range(3):
            with guarded("rooms.joined_members", "deny", "policy_denied"):
                is_refusal(asked(connection, "GET", target, token=town["mallory"].token), 403, DENIED)
            with guarded("rooms.joined_members", "permit"):
                assert asked(connection, "GET", target, token=town["carol"].token).status == 200
        assert connection.sock is socket
    finally:
        connection.close()
