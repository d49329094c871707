"""Stories that people live through with matrix-nio, whose client does not know that there is a gate."""

import io

import nio
import pytest
from town import CLIENT, FORMER, MEMBERS, OUTSIDERS, segment

ROOMS = ["private 11", "private 12"]
NOT_ALLOWED = ("M_FORBIDDEN", "You are not allowed to see this.")


def told(error) -> tuple[str, str]:
    return error.status_code, error.message


def test_a_client_logs_in_looks_who_it_is_and_logs_out(town, gate, talk):
    async def session(client):
        client.access_token = ""
        login = await client.login(town["erin"].password)
        me = await client.whoami()
        rooms = await client.joined_rooms()
        out = await client.logout()
        return login, me, rooms, out

    login, me, rooms, out = talk.of(town["erin"], session)
    assert isinstance(login, nio.LoginResponse), login
    assert (me.user_id, me.device_id) == ("@erin:localhost", login.device_id)
    assert town.rooms["private 12"] in rooms.rooms
    assert isinstance(out, nio.LogoutResponse), out


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("room", ROOMS)
def test_a_member_sees_who_is_in_the_room(town, talk, talk_past_the_gate, guarded, room, name):
    def ask(client):
        return client.joined_members(town.rooms[room])

    with guarded("rooms.joined_members", "permit", subject=town[name].id):
        seen = talk.of(town[name], ask)
    assert isinstance(seen, nio.JoinedMembersResponse), seen
    names = sorted(member.user_id for member in seen.members)
    assert names == sorted(member.user_id for member in talk_past_the_gate.of(town[name], ask).members)
    assert {"@trent:localhost", "@bob:localhost", "@carol:localhost"} <= set(names)
    assert not {"@dave:localhost", "@leo:localhost", "@bart:localhost"} & set(names)


@pytest.mark.parametrize("name", [*OUTSIDERS, *FORMER])
@pytest.mark.parametrize("room", ROOMS)
def test_somebody_else_is_told_so_in_a_form_that_the_client_parses(town, talk, guarded, room, name):
    with guarded("rooms.joined_members", "deny", "policy_denied", subject=town[name].id):
        refused = talk.of(town[name], lambda client: client.joined_members(town.rooms[room]))
    assert isinstance(refused, nio.JoinedMembersError)
    assert told(refused) == NOT_ALLOWED


@pytest.mark.parametrize("room", ROOMS)
def test_the_client_reads_roles_with_and_without_a_key(town, talk, guarded, room):
    room_id = town.rooms[room]
    with guarded("rooms.power_levels", "permit"):
        levels = talk.of(town["carol"], lambda client: client.room_get_state_event(room_id, "m.room.power_levels"))
    assert levels.content["users"]["@bob:localhost"] == 50
    # Who made a room of version 12 stands above all levels and is not among them.
    assert ("@trent:localhost" in levels.content["users"]) == (room == "private 11")
    with guarded("rooms.member", "permit"):
        member = talk.of(
            town["carol"], lambda client: client.room_get_state_event(room_id, "m.room.member", "@dave:localhost")
        )
    assert member.content == {"membership": "leave"}
    with guarded("rooms.power_levels", "deny", "policy_denied"):
        refused = talk.of(town["mallory"], lambda client: client.room_get_state_event(room_id, "m.room.power_levels"))
    # This client takes only 404 for an error here, from Synapse as from the gate; what it hands out is the refusal.
    assert refused.transport_response.status == 403
    assert tuple(refused.content.values()) == NOT_ALLOWED


@pytest.mark.parametrize("room", ROOMS)
def test_the_client_reads_the_whole_state(town, talk, guarded, room):
    with guarded("rooms.state", "permit"):
        state = talk.of(town["bob"], lambda client: client.room_get_state(town.rooms[room]))
    events = [event for event in state.events if event["type"] == "m.room.member"]
    members = {event["state_key"]: event["content"]["membership"] for event in events}
    assert members["@carol:localhost"] == "join"
    assert members["@dave:localhost"] == "leave"
    with guarded("rooms.state", "deny", "policy_denied"):
        refused = talk.of(town["alice"], lambda client: client.room_get_state(town.rooms[room]))
    assert told(refused) == NOT_ALLOWED


def test_a_name_with_a_slash_is_asked_for_as_one_name(town, talk, guarded):
    def ask(client):
        return client.room_get_state_event(town.rooms["private 11"], "m.room.member", "@b/o%b:localhost")

    with guarded("rooms.member", "permit") as calls:
        missing = talk.of(town["carol"], ask)
    assert calls.record["context"]["params"]["userId"] == "@b/o%b:localhost"
    assert told(missing) == ("M_NOT_FOUND", "Event not found.")


def test_profiles_and_rooms_of_ones_own_are_there(town, talk, guarded):
    with guarded("profile", "permit"):
        assert talk.of(town["mallory"], lambda client: client.get_profile("@bob:localhost")).displayname == "bob"
    with guarded("profile.field", "permit"):
        assert talk.of(town["mallory"], lambda client: client.get_displayname("@bob:localhost")).displayname == "bob"
    with guarded("joined_rooms", "permit"):
        assert talk.of(town["mallory"], lambda client: client.joined_rooms()).rooms == []


def test_a_token_that_is_none_is_told_in_a_form_that_keeps_the_clients_keys(town, talk, guarded):
    with guarded("rooms.joined_members", "deny", "credential_refused", subject=None):
        refused = talk.of(town["carol"], lambda client: client.joined_members(town.rooms["private 12"]), token="syt_none")
    assert told(refused) == ("M_UNKNOWN_TOKEN", "Invalid access token passed.")
    assert refused.soft_logout is True


# What nobody guards


def ids(events) -> list[str]:
    return [event.source["event_id"] for event in events]


@pytest.mark.parametrize("name", ["carol", "dave", "mallory"])
def test_a_sync_is_what_it_is_without_the_gate(town, gate, talk, talk_past_the_gate, name):
    def sync(client):
        return client.sync(timeout=0, full_state=True)

    with gate.audit.none():
        seen = talk.of(town[name], sync)
    direct = talk_past_the_gate.of(town[name], sync)
    assert isinstance(seen, nio.SyncResponse), seen
    assert bool(direct.rooms.join) == (name == "carol")
    assert seen.rooms.join.keys() == direct.rooms.join.keys()
    assert seen.rooms.invite.keys() == direct.rooms.invite.keys()
    assert seen.rooms.leave.keys() == direct.rooms.leave.keys()
    for room, there in direct.rooms.join.items():
        here = seen.rooms.join[room]
        assert ids(here.timeline.events) == ids(there.timeline.events)
        assert sorted(ids(here.state)) == sorted(ids(there.state))


@pytest.mark.parametrize("version", ["11", "12"])
def test_what_one_writes_the_others_read(town, gate, talk, version):
    room = town.make_room(version)
    town.join(room, "carol")
    text = f"héllo 👋 of version {version}"

    def write(client):
        return client.room_send(room, "m.room.message", {"msgtype": "m.text", "body": text}, ignore_unverified_devices=True)

    with gate.audit.none():
        sent = talk.of(town["carol"], write)
        assert isinstance(sent, nio.RoomSendResponse), sent
        messages = talk.of(town["trent"], lambda client: client.room_messages(room, limit=1))
    assert [(event.event_id, event.body) for event in messages.chunk] == [(sent.event_id, text)]
    direct = town.do(town["trent"], "GET", f"/rooms/{segment(room)}/messages?dir=b&limit=1")
    assert [(event["event_id"], event["content"]["body"]) for event in direct["chunk"]] == [(sent.event_id, text)]


def test_a_file_comes_back_as_it_was_sent(town, gate, talk):
    # More than the gate would ever hold, and no text.
    sent = bytes(range(256)) * 4096

    async def upload(client):
        kind, name = "application/octet-stream", "ünter ways.bin"
        stored, _ = await client.upload(io.BytesIO(sent), content_type=kind, filename=name, filesize=len(sent))
        assert isinstance(stored, nio.UploadResponse), stored
        return stored.content_uri

    with gate.audit.none():
        uri = talk.of(town["carol"], upload)
        target = f"/_matrix/client/v1/media/download/{uri.removeprefix('mxc://')}"
        through = gate.ask("GET", target, town["bob"])
    direct = town.ask("GET", target, town["bob"])
    assert through.status == direct.status == 200
    assert through.body == direct.body == sent
    assert through.headers["content-type"] == direct.headers["content-type"]


def test_a_moderator_changes_the_room_through_the_gate(town, gate, talk):
    room = town.make_room("12")
    town.join(room, "bob")
    with gate.audit.none():
        put = talk.of(town["bob"], lambda client: client.room_put_state(room, "m.room.topic", {"topic": "changed"}))
    assert isinstance(put, nio.RoomPutStateResponse), put
    assert town.do(town["trent"], "GET", f"/rooms/{segment(room)}/state/m.room.topic")["topic"] == "changed"
    levels = f"{CLIENT}/rooms/{segment(room)}/state/m.room.power_levels"
    content = town.ask("GET", levels, town["trent"]).json()
    content["users"]["@carol:localhost"] = 50
    with gate.audit.none():
        assert gate.ask("PUT", levels, town["trent"], body=content).status == 200
    assert town.ask("GET", levels, town["trent"]).json()["users"]["@carol:localhost"] == 50
