"""What a client hears when Synapse does not answer."""

from pathlib import Path

import nio
import pytest
from answers import is_refusal
from conftest import Talk
from gate import Gate
from homeserver import free_port
from town import CLIENT, segment

UNAVAILABLE = b'{"errcode":"M_UNKNOWN","error":"The service is unavailable."}'


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A gate with nothing behind it."""
    folder: Path = tmp_path_factory.mktemp("alone")
    running = Gate(folder, "--provider", "matrix", "--upstream", f"http://127.0.0.1:{free_port()}")
    yield running
    running.stop()


def test_without_synapse_nobody_is_let_in_and_the_refusal_says_to_come_again(town, alone):
    target = f"{CLIENT}/rooms/{segment(town.rooms['private 12'])}/joined_members"
    with alone.audit.one("matrix", "rooms.joined_members", "deny", subject=None, reason="facts_unavailable"):
        refused = alone.ask("GET", target, town["carol"])
    is_refusal(refused, 503, UNAVAILABLE)
    assert int(refused.headers["retry-after"]) > 0


def test_the_client_parses_that_refusal(town, alone):
    refused = Talk(alone.url).of(town["carol"], lambda client: client.joined_members(town.rooms["private 12"]))
    assert isinstance(refused, nio.JoinedMembersError)
    assert (refused.status_code, refused.message) == ("M_UNKNOWN", "The service is unavailable.")


def test_without_synapse_what_nobody_guards_is_answered_with_502(town, alone):
    with alone.audit.none():
        answer = alone.ask("GET", f"{CLIENT}/sync?timeout=0", town["carol"])
    assert answer.status == 502
