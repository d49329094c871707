"""One reading of a target: what Synapse takes for the same room reaches it in one form, and nothing slips past the gate."""

import pytest
from answers import DENIED, content, is_refusal
from town import CLIENT, segment

ROOMS = ["private 11", "private 12"]


def every_letter(text: str, digits: str = "%{:02x}") -> str:
    return "".join(digits.format(byte) for byte in text.encode())


LEGAL = {
    "plain": lambda room: room,
    "encoded": segment,
    "encoded in small letters": lambda room: segment(room).replace("%3A", "%3a"),
    "half encoded": lambda room: "%21" + room[1:],
    "every letter encoded": every_letter,
    "every letter encoded in capitals": lambda room: every_letter(room, "%{:02X}"),
}


@pytest.mark.parametrize("spelling", LEGAL.values(), ids=LEGAL.keys())
@pytest.mark.parametrize("room", ROOMS)
def test_each_legal_spelling_of_a_room_is_that_room_and_synapse_sees_one(town, gate, guarded, homeserver, room, spelling):
    spelled = f"{CLIENT}/rooms/{spelling(town.rooms[room])}/joined_members"
    usual = f"{CLIENT}/rooms/{segment(town.rooms[room])}/joined_members"
    with guarded("rooms.joined_members", "permit") as calls:
        seen = gate.ask("GET", spelled, town["carol"])
    assert seen.json() == town.ask("GET", spelled, town["carol"]).json()
    assert "@carol:localhost" in seen.json()["joined"]
    assert calls.record["resource"] == {"type": "Room", "id": town.rooms[room]}
    assert f"GET {usual}" in homeserver.seen(calls.record["id"])
    with guarded("rooms.joined_members", "deny", "policy_denied"):
        is_refusal(gate.ask("GET", spelled, town["mallory"]), 403, DENIED)


CAROL = ["@carol:localhost", "%40carol%3Alocalhost", "%40carol%3alocalhost", every_letter("@carol:localhost")]


@pytest.mark.parametrize("user", CAROL)
def test_each_legal_spelling_of_a_user_is_that_user_and_synapse_sees_one(town, gate, guarded, homeserver, user):
    room = segment(town.rooms["private 11"])
    with guarded("rooms.member", "permit") as calls:
        seen = gate.ask("GET", f"{CLIENT}/rooms/{room}/state/m.room.member/{user}", town["bob"])
    assert seen.json() == {"displayname": "carol", "membership": "join"}
    assert f"GET {CLIENT}/rooms/{room}/state/m.room.member/%40carol%3Alocalhost" in homeserver.seen(calls.record["id"])
    with guarded("profile", "permit") as calls:
        seen = gate.ask("GET", f"{CLIENT}/profile/{user}", town["mallory"])
    assert seen.json() == {"displayname": "carol"}
    assert f"GET {CLIENT}/profile/%40carol%3Alocalhost" in homeserver.seen(calls.record["id"])


# {r} is the room with everything encoded, {p} as it is written. Some of them mean something to Synapse, others nothing;
# a server behind another proxy may be of another opinion.
CREATIVE = [
    "/_matrix/client/v3/rooms/{r}/joined_members/",
    "/_matrix/client/v3/rooms/{r}/joined_members//",
    "/_matrix/client/v3/rooms//{r}/joined_members",
    "/_matrix/client/v3//rooms/{r}/joined_members",
    "//_matrix/client/v3/rooms/{r}/joined_members",
    "/_matrix//client/v3/rooms/{r}/members",
    "/_matrix/client/v3/rooms/{r}/Joined_Members",
    "/_matrix/client/V3/rooms/{r}/members",
    "/_MATRIX/client/v3/rooms/{r}/members",
    "/_matrix/client/v3/rooms/{r}/joined_members;x=1",
    "/_matrix/client/v3/rooms;x/{r}/joined_members",
    "/_matrix/client/v3/rooms/{r}/%6aoined_members",
    "/_matrix/client/%76%33/rooms/{r}/members",
    "/%5fmatrix/client/v3/rooms/{r}/members",
    "/_matrix/%63lient/v3/rooms/{r}/members",
    "/_matrix%2fclient/v3/rooms/{r}/members",
    "/_matrix/client/v3/rooms/./{r}/members",
    "/_matrix/client/v3/x/../rooms/{r}/members",
    "/_matrix/client/v3/rooms/{r}/x/../members",
    "/_matrix/client/v3/rooms/{r}/%2e%2e/{r}/members",
    "/_matrix/client/v3/rooms/{r}%2Fmembers",
    "/_matrix/client/v3/rooms%2F{r}/members",
    "/_matrix/client/v3/rooms/{r}%2F..%2F{r}/members",
    "/x/../_matrix/client/v3/rooms/{r}/members",
    "/_synapse/../_matrix/client/v3/rooms/{r}/members",
    "/_matrix\\client/v3/rooms/{r}/members",
    "/_matrix/client/v3/rooms/{r}/members#x",
    "/_matrix/client/v3/rooms/{r}/members%23x",
    "/_matrix/client/v3/rooms/{r}/members%00",
    "/_matrix/client/v3/rooms/{r}/members%0a",
    "/_matrix/client/v3/rooms/{r}/members%20",
    "/_matrix/client/v3/rooms/{r}%00/members",
    "/_matrix/client/v3/rooms/%20{r}/members",
    "/_matrix/client/v3/rooms/{r}/state/",
    "/_matrix/client/v3/rooms/{r}/state//",
    "/_matrix/client/v3/rooms/{r}/state/m%2Eroom%2Epower_levels",
    "/_matrix/client/v3/rooms/{r}/state/%6D.room.power_levels",
    "/_matrix/client/v3/rooms/{r}/state/%6D.room.power_levels/",
    "/_matrix/client/v3/rooms/{r}/state/m.room.power_levels//",
    "/_matrix/client/v3/rooms/{r}/state/m%2Eroom.create",
    "/_matrix/client/v3/rooms/{r}/state/m.room%2Emember/@carol:localhost",
    "/_matrix/client/v3/rooms/{r}/state/%6d.room.member/%40carol%3Alocalhost",
    "/_matrix/client/v3/rooms/{r}/state/m.room.member/@carol:localhost/",
    "/_matrix/client/v3/rooms/{r}/members?",
    "/_matrix/client/v3/rooms/{r}/members?x=1",
    "/_matrix/client/v3/rooms/{r}/members?x=1?membership=join",
    "/_matrix/client/v3/rooms/{r}/members?membership=join;not_membership=ban",
    "/_matrix/client/v3/rooms/{r}/members?membership=join&membership=leave",
    "/_matrix/client/v3/rooms/{r}/members?m%65mbership=join",
    "/_matrix/client/v3/rooms/{r}/members?user_id=@carol:localhost",
    "/_matrix/client/v3/rooms/{r}/joined_members?user_id=@carol:localhost",
    "/_matrix/client/v3/rooms/{r}/state/m.room.power_levels?format=event;x=1",
    "/_matrix/client/v3/rooms/{r}/state/m.room.power_levels?FORMAT=event",
    "/_matrix/client/api/v1/rooms/{p}/members",
    "/_matrix/client/unstable/rooms/{p}/members",
    "http://localhost/_matrix/client/v3/rooms/{r}/members",
    "http://localhost//_matrix/client/v3/rooms/{r}/members",
]
# Whose answers hold one of these have been shown something of the room.
TELLING = (b"@carol", b"@bob", b"@trent", b"@erin", b"users_default", b"room_version")


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("target", CREATIVE)
def test_no_spelling_shows_an_outsider_anything(town, gate, target, room):
    target = target.format(r=segment(town.rooms[room]), p=town.rooms[room])
    for name in ("mallory", "ivan", "bart", "alice"):
        answer = gate.ask("GET", target, town[name])
        assert answer.status >= 400, (name, answer)
        assert not [word for word in TELLING if word in answer.body], (name, answer)


@pytest.mark.parametrize("target", CREATIVE)
def test_a_member_gets_what_synapse_reads_there_or_a_plain_no(town, gate, target):
    target = target.format(r=segment(town.rooms["private 12"]), p=town.rooms["private 12"])
    seen = gate.ask("GET", target, town["carol"])
    if seen.status == 200:
        assert content(seen) == content(town.ask("GET", target, town["carol"]))
    else:
        assert seen.status in (400, 401, 403, 404), seen
        assert seen.json()["errcode"].startswith("M_")


def test_the_event_type_counts_as_it_decodes(town, gate):
    """Synapse reads `m%2Eroom.power_levels` as the power levels; no policy about those may be walked around by it."""
    room = segment(town.rooms["private 11"])
    for spelled in ("m%2Eroom.power_levels", "%6D.room.power_levels", every_letter("m.room.power_levels")):
        target = f"{CLIENT}/rooms/{room}/state/{spelled}"
        assert town.ask("GET", target, town["carol"]).status == 200
        before = len(gate.audit.decisions())
        answer = gate.ask("GET", target, town["carol"])
        (record,) = gate.audit.decisions()[before:]
        if answer.status == 200:
            assert record["action"] == {"name": "rooms.power_levels"}
        else:
            assert (answer.status, record["reason"]) == (400, "target_ambiguous")


# Where else a login may stand


def test_a_token_in_the_query_is_not_taken_for_a_login(town, gate):
    target = f"{CLIENT}/rooms/{segment(town.rooms['private 12'])}/joined_members"
    carol = town["carol"].token
    for query in ("access_token={}", "%61ccess_token={}", "x=1;access_token={}", "a=b&access_token={}"):
        query = query.format(carol)
        # All of them are logins to Synapse.
        assert town.ask("GET", f"{target}?{query}").status == 200
        for person in (None, town["mallory"]):
            refused = gate.ask("GET", f"{target}?{query}", person)
            assert refused.status in (400, 401), refused
            assert b"@bob" not in refused.body


def test_a_token_in_the_body_is_not_taken_for_a_login(town, gate):
    target = f"{CLIENT}/user_directory/search"
    body = ('{"search_term":"bo","x":"&access_token=%s&"}' % town["carol"].token).encode()
    form = [("Content-Type", "application/x-www-form-urlencoded")]
    # Synapse reads this body twice: as a form, where the token is, and as JSON.
    assert town.ask("POST", target, headers=form, body=body).status == 200
    for person in (None, town["mallory"]):
        refused = gate.ask("POST", target, person, headers=form, body=body)
        assert refused.status in (400, 401), refused
        assert b"@bob" not in refused.body


@pytest.mark.parametrize("header", ["bearer {}", "Bearer  {}", "Bearer\t{}", "Basic {}", "{}", "Bearer {} x", "Bearer {},x"])
def test_only_one_form_of_the_header_is_a_login(town, gate, header):
    target = f"{CLIENT}/rooms/{segment(town.rooms['private 12'])}/joined_members"
    refused = gate.ask("GET", target, headers=[("Authorization", header.format(town["carol"].token))])
    assert refused.status in (400, 401), refused
    assert refused.json()["errcode"] in ("M_MISSING_TOKEN", "M_UNKNOWN_TOKEN", "M_INVALID_PARAM")


def test_two_logins_are_none(town, gate):
    target = f"{CLIENT}/rooms/{segment(town.rooms['private 12'])}/joined_members"
    both = [("Authorization", f"Bearer {town[name].token}") for name in ("mallory", "carol")]
    for headers in (both, both[::-1]):
        refused = gate.ask("GET", target, headers=headers)
        assert refused.status in (400, 401), refused
        assert b"@bob" not in refused.body
