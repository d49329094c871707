"""What the audit file says when the other stories are over; named to run after them."""

import subprocess

from program import program
from record import wait_until


def test_each_permitted_call_has_its_outcome(gate):
    permitted = {record["id"] for record in gate.audit.decisions() if record["decision"] == "permit"}
    assert permitted, "no story ran before this one: run the whole folder"

    def without_outcome():
        return permitted - {record["id"] for record in gate.audit.outcomes()}

    wait_until(lambda: not without_outcome())
    assert without_outcome() == set()


def test_no_two_decisions_share_an_id(gate):
    ids = [record["id"] for record in gate.audit.decisions()]
    assert len(ids) == len(set(ids))


def test_a_record_names_who_asked_for_which_room_and_why_they_might(town, gate, guarded):
    room = town.rooms["private 11"]
    target = f"/_matrix/client/v3/rooms/{room}/joined_members"
    with guarded("rooms.joined_members", "permit") as calls:
        assert gate.ask("GET", target, town["carol"]).status == 200
    record = calls.record
    assert record["target"] == target
    assert record["subject"] == {"type": "User", "id": "@carol:localhost", "name": "@carol:localhost", "roles": []}
    assert record["resource"] == {"type": "Room", "id": room}
    assert record["context"]["params"] == {"roomId": room}
    assert record["context"]["room"]["joined"] is True
    assert record["policies"] == ["joined-members"]


def test_rolegate_itself_finds_the_file_whole(gate):
    command = [program(), "audit", "verify", str(gate.audit.path)]
    verified = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_no_secret_is_in_the_file(town, gate):
    text = gate.audit.path.read_text()
    secrets = [secret for person in town.people.values() for secret in (person.token, person.password)]
    assert [secret for secret in secrets if secret in text] == []
