"""Who sees whom in which room: every kind of caller at every door of every kind of room, beside what Synapse answers."""

import pytest
from answers import DENIED, NO_TOKEN, REFUSED_TOKEN, content, is_refusal, without_id
from town import CLIENT, FORMER, KINDS, MEMBERS, OUTSIDERS, VERSIONS, segment

DOORS = {
    "rooms.members": "members",
    "rooms.joined_members": "joined_members",
    "rooms.state": "state",
    "rooms.power_levels": "state/m.room.power_levels",
    "rooms.member": "state/m.room.member/@carol:localhost",
    "rooms.state_event": "state/m.room.create",
    "rooms.keyed_state_event": "state/m.room.member.note/carol",
}
ROOMS = [f"{kind} {version}" for kind in KINDS for version in VERSIONS]
PRIVATE = [room for room in ROOMS if not room.startswith("world")]
WORLD = [room for room in ROOMS if room.startswith("world")]
FIRST_SIGHT = [action for action in DOORS if action != "rooms.joined_members"]


def door(town, room, action, prefix=CLIENT):
    return f"{prefix}/rooms/{segment(town.rooms[room])}/{DOORS[action]}"


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("room", ROOMS)
def test_a_member_gets_at_each_door_what_synapse_answers(town, gate, guarded, room, name):
    for action in DOORS:
        with guarded(action, "permit", subject=town[name].id) as calls:
            seen = gate.ask("GET", door(town, room, action), town[name])
        direct = town.ask("GET", door(town, room, action), town[name])
        assert (seen.status, content(seen)) == (direct.status, content(direct))
        assert calls.record["resource"] == {"type": "Room", "id": town.rooms[room]}


def test_an_additional_creator_of_a_version_12_room_is_a_member_like_others(town, gate, guarded):
    for action in DOORS:
        with guarded(action, "permit", subject="@erin:localhost"):
            seen = gate.ask("GET", door(town, "private 12", action), town["erin"])
        assert content(seen) == content(town.ask("GET", door(town, "private 12", action), town["erin"]))


@pytest.mark.parametrize("name", OUTSIDERS)
@pytest.mark.parametrize("room", PRIVATE)
def test_an_outsider_gets_nothing_at_any_door_of_a_room_that_is_not_for_everybody(town, gate, guarded, room, name):
    for action in DOORS:
        with guarded(action, "deny", "policy_denied", subject=town[name].id) as calls:
            refused = gate.ask("GET", door(town, room, action), town[name])
        is_refusal(refused, 403, DENIED)
        assert refused.headers["x-request-id"] == calls.record["id"]


@pytest.mark.parametrize("name", FORMER)
@pytest.mark.parametrize("room", ROOMS)
def test_a_former_member_gets_what_was_but_not_who_is_there_now(town, gate, guarded, room, name):
    for action in FIRST_SIGHT:
        with guarded(action, "permit", subject=town[name].id):
            seen = gate.ask("GET", door(town, room, action), town[name])
        direct = town.ask("GET", door(town, room, action), town[name])
        assert (seen.status, content(seen)) == (direct.status, content(direct))
    with guarded("rooms.joined_members", "deny", "policy_denied", subject=town[name].id):
        is_refusal(gate.ask("GET", door(town, room, "rooms.joined_members"), town[name]), 403, DENIED)


@pytest.mark.parametrize("name", OUTSIDERS)
@pytest.mark.parametrize("room", WORLD)
def test_a_room_that_everybody_may_read_shows_its_state_to_outsiders(town, gate, guarded, room, name):
    for action in FIRST_SIGHT:
        with guarded(action, "permit", subject=town[name].id):
            seen = gate.ask("GET", door(town, room, action), town[name])
        direct = town.ask("GET", door(town, room, action), town[name])
        assert (seen.status, content(seen)) == (direct.status, content(direct))


@pytest.mark.parametrize("room", WORLD)
def test_who_is_in_a_room_is_for_members_even_if_everybody_may_read_it(town, gate, guarded, room):
    with guarded("rooms.joined_members", "deny", "policy_denied"):
        refused = gate.ask("GET", door(town, room, "rooms.joined_members"), town["mallory"])
    is_refusal(refused, 403, DENIED)
    # Synapse is more generous here than the specification.
    assert town.ask("GET", door(town, room, "rooms.joined_members"), town["mallory"]).status == 200


@pytest.mark.parametrize("prefix", ["api/v1", "r0", "v3", "unstable"])
@pytest.mark.parametrize("action", DOORS)
def test_each_prefix_that_synapse_serves_is_the_same_door(town, gate, guarded, action, prefix):
    target = door(town, "private 12", action, f"/_matrix/client/{prefix}")
    with guarded(action, "permit"):
        seen = gate.ask("GET", target, town["carol"])
    direct = town.ask("GET", target, town["carol"])
    assert (seen.status, content(seen)) == (direct.status, content(direct))
    with guarded(action, "deny", "policy_denied"):
        is_refusal(gate.ask("GET", target, town["mallory"]), 403, DENIED)


# What refusals tell


UNKNOWN = ["!xxxxxxxxxxxxxxxxxx:localhost", "!xxxxxxxxxxxxxxxxxx:elsewhere.example", "!" + "x" * 43]


@pytest.mark.parametrize("action", DOORS)
def test_a_refusal_does_not_tell_whether_the_room_exists(town, gate, guarded, action):
    rooms = [*(town.rooms[room] for room in PRIVATE), *UNKNOWN]
    with guarded(action, "deny", "policy_denied", subject="@mallory:localhost", times=len(rooms)):
        refusals = [
            gate.ask("GET", f"{CLIENT}/rooms/{segment(room)}/{DOORS[action]}", town["mallory"]) for room in rooms
        ]
    assert len({refusal.headers["x-request-id"] for refusal in refusals}) == len(rooms)
    first, *others = map(without_id, refusals)
    assert others == [first] * len(others)
    is_refusal(refusals[0], 403, DENIED)


def test_a_refused_request_never_reaches_synapse(town, gate, guarded, homeserver):
    target = door(town, "private 12", "rooms.members")
    with guarded("rooms.members", "deny", "policy_denied") as refused:
        gate.ask("GET", target, town["mallory"])
    with guarded("rooms.members", "permit") as passed:
        gate.ask("GET", target, town["carol"])
    # The later request is in Synapse's log, so the earlier one would be.
    assert f"GET {target}" in homeserver.seen(passed.record["id"])
    assert f"GET {target}" not in homeserver.seen_so_far(refused.record["id"])


@pytest.mark.parametrize("action", DOORS)
def test_nobody_gets_anything_without_a_login(town, gate, guarded, action):
    with guarded(action, "deny", "credential_missing", subject=None):
        is_refusal(gate.ask("GET", door(town, "world 12", action)), 401, NO_TOKEN)
    with guarded(action, "deny", "credential_refused", subject=None):
        refused = gate.ask("GET", door(town, "world 12", action), headers=[("Authorization", "Bearer syt_nobody")])
    is_refusal(refused, 401, REFUSED_TOKEN)


# HEAD, and methods that change something


@pytest.mark.parametrize("action", DOORS)
def test_head_is_judged_like_get(town, gate, guarded, action):
    with guarded(action, "permit"):
        seen = gate.ask("HEAD", door(town, "private 11", action), town["carol"])
    direct = town.ask("HEAD", door(town, "private 11", action), town["carol"])
    assert (seen.status, seen.body) == (direct.status, b"")
    with guarded(action, "deny", "policy_denied"):
        refused = gate.ask("HEAD", door(town, "private 11", action), town["mallory"])
    assert (refused.status, refused.body) == (403, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_list_of_members_takes_no_other_method(town, gate, unmatched, method):
    with unmatched("method_not_declared"):
        refused = gate.ask(method, door(town, "private 12", "rooms.joined_members"), town["carol"])
    is_refusal(refused, 405, b'{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}')
    assert "GET" in refused.headers["allow"]


def test_the_slash_at_the_end_is_the_same_event_and_the_same_door(town, gate, guarded):
    room = segment(town.rooms["private 11"])
    for action, path in [("rooms.power_levels", "m.room.power_levels"), ("rooms.state_event", "m.room.create")]:
        target = f"{CLIENT}/rooms/{room}/state/{path}"
        with guarded(action, "permit", times=2):
            plain, slash = (gate.ask("GET", target + end, town["carol"]) for end in ("", "/"))
        assert plain.status == slash.status == 200
        assert content(plain) == content(slash)
        with guarded(action, "deny", "policy_denied"):
            is_refusal(gate.ask("GET", target + "/", town["mallory"]), 403, DENIED)
