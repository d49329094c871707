"""What the audit file says when the other stories are over; named to run after them."""

import hashlib
import subprocess

from record import wait_until
from world import CHAT_PEOPLE, MALLORY


def test_each_guarded_call_left_one_decision_and_nothing_else_did(audit):
    assert audit.expected > 0, "no story ran before this one: run the whole folder"
    assert len(audit.decisions()) == audit.expected


def test_each_permitted_call_has_its_outcome(audit):
    permitted = {record["id"] for record in audit.decisions() if record["decision"] == "permit"}
    assert permitted, "no story ran before this one: run the whole folder"

    def without_outcome():
        return permitted - {record["id"] for record in audit.outcomes()}

    wait_until(lambda: not without_outcome())
    assert without_outcome() == set()


def test_no_two_decisions_share_an_id(audit):
    ids = [record["id"] for record in audit.decisions()]
    assert len(ids) == len(set(ids))


def test_every_line_holds_the_digest_of_the_one_before(audit):
    *lines, unfinished = audit.path.read_bytes().split(b"\n")
    assert unfinished == b""
    entries = audit.entries()[: len(lines)]
    assert [entry["prev"] for entry in entries] == ["0" * 64] + [hashlib.sha256(line).hexdigest() for line in lines[:-1]]
    first = entries[0]["seq"]
    assert [entry["seq"] for entry in entries] == list(range(first, first + len(entries)))


def test_rolegate_itself_finds_the_file_whole(demo, audit):
    verified = subprocess.run([demo.program, "audit", "verify", str(audit.path)], capture_output=True, text=True, timeout=30)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_no_secret_is_in_the_file(audit, chat):
    text = audit.path.read_text()
    secrets = [secret for person in (*CHAT_PEOPLE, MALLORY) for secret in (person.password, person.token, person.bearer)]
    assert [secret for secret in [*secrets, *chat.issued] if secret in text] == []
