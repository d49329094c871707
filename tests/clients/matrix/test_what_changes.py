"""How fast the gate learns that somebody came, went, lost a role or logged out, with facts that live a second and longer."""

import time
from pathlib import Path

import nio
import pytest
from answers import DENIED, REFUSED_TOKEN, is_refusal
from conftest import Talk
from gate import Gate
from policy_folder import MODERATORS_ONLY, matrix_folder
from town import CLIENT, segment

LEARNS_WITHIN = 15


def started(homeserver, folder: Path, ttl: str, policy: str | None = None) -> Gate:
    """A gate with a configuration file and a policy folder: facts that live this long, and these policies when given."""
    policies = matrix_folder(folder, policy=policy, own_ttl=False)
    config = folder / "rolegate.toml"
    config.write_text(f"""
[[upstream]]
provider = "matrix"
url = "{homeserver.url}"
[facts]
ttl = "{ttl}"
refused_ttl = "1s"
[policies]
directory = "{policies}"
""")
    return Gate(folder, "--config", str(config))


@pytest.fixture(scope="module")
def brief(homeserver, tmp_path_factory):
    running = started(homeserver, tmp_path_factory.mktemp("brief"), "1s")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def moderators(homeserver, tmp_path_factory):
    """An operator's policy: only who moderates a room may list its members."""
    running = started(homeserver, tmp_path_factory.mktemp("moderators"), "1s", MODERATORS_ONLY)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def lasting(homeserver, tmp_path_factory):
    running = started(homeserver, tmp_path_factory.mktemp("lasting"), "10m", MODERATORS_ONLY)
    yield running
    running.stop()


def until(gate, target, person, status, body=None):
    """Asks until the answer is this one; every answer on the way."""
    answers = []
    deadline = time.monotonic() + LEARNS_WITHIN
    while time.monotonic() < deadline:
        answers.append(gate.ask("GET", target, person))
        if answers[-1].status == status and body in (None, answers[-1].body):
            return answers
        time.sleep(0.05)
    raise AssertionError(f"not within {LEARNS_WITHIN} s: {answers[-1]}")


@pytest.mark.parametrize("version", ["11", "12"])
def test_somebody_who_was_kicked_sees_no_members_any_more(town, brief, version):
    room = town.make_room(version)
    town.join(room, "leo")
    target = f"{CLIENT}/rooms/{segment(room)}/joined_members"
    assert brief.ask("GET", target, town["leo"]).status == 200
    town.kick(room, "leo")
    answers = until(brief, target, town["leo"], 403, DENIED)
    # Until the gate knows, Synapse says no itself.
    assert {answer.status for answer in answers} == {403}


def test_without_a_word_of_the_operator_a_kick_is_known_after_ten_seconds(town, gate):
    room = town.make_room("12")
    town.join(room, "leo")
    target = f"{CLIENT}/rooms/{segment(room)}/joined_members"
    assert gate.ask("GET", target, town["leo"]).status == 200
    town.kick(room, "leo")
    until(gate, target, town["leo"], 403, DENIED)


@pytest.mark.parametrize("version", ["11", "12"])
def test_somebody_who_was_let_in_sees_the_members_soon(town, brief, version):
    room = town.make_room(version)
    target = f"{CLIENT}/rooms/{segment(room)}/joined_members"
    is_refusal(brief.ask("GET", target, town["leo"]), 403, DENIED)
    town.join(room, "leo")
    seen = until(brief, target, town["leo"], 200)[-1]
    assert "@leo:localhost" in seen.json()["joined"]


def test_somebody_who_was_banned_sees_nothing_of_the_room_any_more(town, brief):
    room = town.make_room("12")
    town.join(room, "leo")
    target = f"{CLIENT}/rooms/{segment(room)}/members"
    assert brief.ask("GET", target, town["leo"]).status == 200
    town.ban(room, "leo")
    until(brief, target, town["leo"], 403, DENIED)


# An operator's policy by role


@pytest.mark.parametrize(("version", "creators"), [("11", ()), ("12", ("erin",))])
def test_only_moderators_list_members_where_an_operator_says_so(town, moderators, version, creators):
    room = town.make_room(version, creators=creators)
    for name in ("bob", "carol", *creators):
        town.join(room, name)
    for path in ("members", "joined_members"):
        target = f"{CLIENT}/rooms/{segment(room)}/{path}"
        # Who made the room is its admin; of version 12 so is who was named beside, and neither is in the power levels.
        for name in ("trent", "bob", *creators):
            seen = moderators.ask("GET", target, town[name])
            assert seen.status == 200, (name, seen)
            assert b"@carol:localhost" in seen.body
        for name in ("carol", "mallory", "alice"):
            is_refusal(moderators.ask("GET", target, town[name]), 403, DENIED)
    # Synapse itself would have told her.
    assert town.ask("GET", target, town["carol"]).status == 200
    decided = [record for record in moderators.audit.decisions() if record["resource"]["id"] == room]
    roles = {record["subject"]["id"]: record["context"]["power"]["roles"] for record in decided}
    assert sorted(roles["@trent:localhost"]) == ["admin", "member", "moderator"]
    assert sorted(roles["@bob:localhost"]) == ["member", "moderator"]
    assert sorted(roles["@carol:localhost"]) == ["member"]


def test_an_additional_creator_counts_in_version_12_only(town, moderators):
    old, new = (town.make_room(version, creators=("erin",)) for version in ("11", "12"))
    for room in (old, new):
        town.join(room, "erin")
    assert moderators.ask("GET", f"{CLIENT}/rooms/{segment(new)}/joined_members", town["erin"]).status == 200
    is_refusal(moderators.ask("GET", f"{CLIENT}/rooms/{segment(old)}/joined_members", town["erin"]), 403, DENIED)


@pytest.mark.parametrize("version", ["1", "5", "9", "10", "11", "12"])
def test_who_made_a_room_of_whatever_version_is_its_admin(town, moderators, version):
    room = town.make_room(version)
    for name in ("bob", "carol"):
        town.join(room, name)
    target = f"{CLIENT}/rooms/{segment(room)}/joined_members"
    answers = {name: moderators.ask("GET", target, town[name]).status for name in ("trent", "bob", "carol")}
    assert answers == {"trent": 200, "bob": 200, "carol": 403}
    decided = {record["subject"]["id"]: record for record in moderators.audit.decisions() if record["resource"]["id"] == room}
    assert "admin" in decided["@trent:localhost"]["context"]["power"]["roles"]


@pytest.mark.parametrize("version", ["11", "12"])
def test_everybody_moderates_a_room_whose_default_level_says_so(town, moderators, version):
    room = town.make_room(version, default=50)
    town.join(room, "carol")
    target = f"{CLIENT}/rooms/{segment(room)}/joined_members"
    assert moderators.ask("GET", target, town["carol"]).status == 200
    is_refusal(moderators.ask("GET", target, town["mallory"]), 403, DENIED)


@pytest.mark.parametrize("version", ["11", "12"])
def test_a_name_that_must_be_encoded_holds_its_role_like_any_other(town, moderators, version):
    creators = ("o/neil",) if version == "12" else ()
    room = town.make_room(version, moderators=() if creators else ("o/neil",), creators=creators)
    town.join(room, "o/neil")
    target = f"{CLIENT}/rooms/{segment(room)}/joined_members"
    seen = moderators.ask("GET", target, town["o/neil"])
    assert seen.status == 200, seen
    assert "@o/neil:localhost" in seen.json()["joined"]


def test_a_creator_who_left_has_no_role_any_more(town, moderators):
    room = town.make_room("12", creators=("erin",))
    town.join(room, "erin")
    target = f"{CLIENT}/rooms/{segment(room)}/members"
    assert moderators.ask("GET", target, town["erin"]).status == 200
    town.leave(room, "erin")
    until(moderators, target, town["erin"], 403, DENIED)


def test_a_moderator_who_lost_the_role_loses_the_list(town, moderators):
    room = town.make_room("11")
    town.join(room, "bob")
    target = f"{CLIENT}/rooms/{segment(room)}/joined_members"
    assert moderators.ask("GET", target, town["bob"]).status == 200
    town.set_level(room, "bob", 0)
    until(moderators, target, town["bob"], 403, DENIED)
    # Synapse would still tell a plain member.
    assert town.ask("GET", target, town["bob"]).status == 200


def test_an_operator_need_not_wait_for_a_fact_to_age(town, lasting):
    room = town.make_room("12")
    town.join(room, "bob")
    target = f"{CLIENT}/rooms/{segment(room)}/joined_members"
    assert lasting.ask("GET", target, town["bob"]).status == 200
    town.set_level(room, "bob", 0)
    assert lasting.ask("GET", target, town["bob"]).status == 200, "a fact of this gate lives ten minutes"
    lasting.forget(town["bob"])
    is_refusal(lasting.ask("GET", target, town["bob"]), 403, DENIED)


# Logins that end


def test_a_login_that_ended_opens_no_door(town, gate, guarded):
    carol = {"type": "m.id.user", "user": "carol"}
    wanted = {"type": "m.login.password", "identifier": carol, "password": town["carol"].password}
    login = gate.ask("POST", f"{CLIENT}/login", body=wanted)
    token = [("Authorization", f"Bearer {login.json()['access_token']}")]
    target = f"{CLIENT}/rooms/{segment(town.rooms['private 12'])}/joined_members"
    with guarded("rooms.joined_members", "permit", subject="@carol:localhost"):
        assert gate.ask("GET", target, headers=token).status == 200
    assert gate.ask("POST", f"{CLIENT}/logout", headers=token).status == 200
    # The gate may still know this login, Synapse does not, and the gate learns it from the first 401.
    first = gate.ask("GET", target, headers=token)
    assert (first.status, first.json()["errcode"]) == (401, "M_UNKNOWN_TOKEN")
    refused = gate.ask("GET", target, headers=token)
    is_refusal(refused, 401, REFUSED_TOKEN)


def test_a_client_learns_that_its_login_ended(town, brief):
    talk = Talk(brief.url)

    async def until_logged_out(client):
        client.access_token = ""
        await client.login(town["carol"].password)
        seen = await client.joined_members(town.rooms["private 11"])
        token = client.access_token
        await client.logout()
        client.access_token = token
        return seen, await client.joined_members(town.rooms["private 11"])

    seen, refused = talk.of(town["carol"], until_logged_out)
    assert isinstance(seen, nio.JoinedMembersResponse)
    assert isinstance(refused, nio.JoinedMembersError)
    assert refused.status_code == "M_UNKNOWN_TOKEN"
