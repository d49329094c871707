"""The stories that every official client lives through, told by the two Python clients; the Node clients tell the same."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import ANY
from urllib.parse import urlsplit

import pytest
from conftest import Chat, Rooms
from docusign_rooms import ApiClient
from docusign_rooms.client.api_exception import ApiException
from gates import FailingServer, Gate, strict
from record import AuditFile
from relay import Answer, Relay
from rocketchat_API.APIExceptions.RocketExceptions import RocketApiException, RocketBadStatusCodeException
from snapshots import Snapshots
from urllib3.util.retry import Retry
from world import Person

STORIES = json.loads((Path(__file__).parent / "stories.json").read_text())["stories"]
# Of the headers, those that rolegate chooses and that do not change from run to run.
TOLD = ("content-type", "content-length", "cache-control", "pragma", "retry-after", "www-authenticate", "x-request-id")


def one_by_one(stories: list[dict]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("story", stories, ids=[story["story"] for story in stories])


ROCKETCHAT = [story for story in STORIES if story["action"] != "rooms.users"]
DOCUSIGN = [story for story in STORIES if story["action"] == "rooms.users"]


@pytest.fixture(scope="module")
def gate_of(demo, audit, tmp_path_factory):
    """Gives the gate that a story is played before: a relay in front of it, and its audit file."""
    server = FailingServer()
    failing = Gate("failing", tmp_path_factory.mktemp("failing"), upstream=server.url)
    operators_own = strict(demo.rocketchat.sample, tmp_path_factory.mktemp("strict"))
    gates = {
        "sample": SimpleNamespace(relay=Relay(urlsplit(demo.rocketchat.gate).port), audit=audit),
        "failing": SimpleNamespace(relay=Relay(failing.port), audit=AuditFile(failing.audit)),
        "strict": SimpleNamespace(relay=Relay(operators_own.port), audit=AuditFile(operators_own.audit)),
    }
    yield lambda story: gates[story.get("server", "sample")]
    for running in (*(gate.relay for gate in gates.values()), operators_own, failing, server):
        running.stop()


def live_through(story: dict, provider: str, gate: SimpleNamespace, call: Callable[[], dict], waits: list | None = None) -> tuple[Answer, dict]:
    """What the gate sent at last for the story's call, and what is to be kept of that and of what the client made of it.

    A client that waits and asks again does so within the call; each asking has a record of its own.
    """
    decision, reason = ("permit", None) if story["sees"] == "permit" else ("deny", story["sees"])
    before = len(gate.relay.answers)
    with gate.audit.one(provider, story["action"], decision, subject=ANY, reason=reason) as calls:
        client = call()
        calls.times = 1 + len(waits or [])
    sent = gate.relay.answers[before:]
    assert len(sent) == calls.times
    assert [answer.headers["x-request-id"] for answer in sent] == [record["id"] for record in calls.records]
    seen = {"gate": {"status": sent[-1].status, "headers": told(sent[-1].headers), "body": sent[-1].body.decode()}, "client": client}
    text = json.dumps(seen, default=lambda value: {"bytes": value.decode()})
    return sent[-1], json.loads(text.replace(calls.records[-1]["id"], "<decision id>"))


def told(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in TOLD if name in headers}


def name_of(error: Exception) -> str:
    return f"{type(error).__module__}.{type(error).__name__}"


@pytest.fixture(scope="module")
def chat_snapshots():
    return Snapshots("rocketchat-API.python")


@one_by_one(ROCKETCHAT)
def test_rocketchat_api_sees(story, gate_of, chat_snapshots):
    gate = gate_of(story)
    chat = Chat(f"http://127.0.0.1:{gate.relay.port}")
    client = chat.log_in(Person(story["as"]))
    if story.get("login") == "lost":
        client.logout()

    def call():
        try:
            if story["action"] == "roles.getUsersInRole":
                return {"returns": list(client.roles_get_users_in_role(**story["with"]))}
            return {"returns": client.call_api_get(story["action"].replace("audit.", "audit/"), **story["with"])}
        except (RocketApiException, RocketBadStatusCodeException) as error:
            return {"raises": name_of(error), "message": str(error), "holds": vars(error)}

    sent, seen = live_through(story, "rocketchat", gate, call)
    content = json.loads(sent.body)
    if story["action"] == "roles.getUsersInRole" and story["sees"] == "permit":
        assert seen["client"]["returns"] == content["users"]
    elif story["sees"] == "permit":
        assert seen["client"]["returns"] == content
    else:
        assert seen["client"]["holds"]["status_code"] == sent.status
        assert seen["client"]["holds"]["response"] == sent.body.decode()
        assert seen["client"]["holds"]["response_json"] == content
    chat_snapshots.compare(story["story"], seen)


def test_the_file_of_rocketchat_api_holds_these_stories_and_no_other(chat_snapshots):
    chat_snapshots.close([story["story"] for story in ROCKETCHAT])


@pytest.fixture(scope="module")
def rooms_snapshots():
    return Snapshots("docusign-rooms.python")


@pytest.fixture
def waits(monkeypatch):
    """The seconds for which a client would have waited before it asked again, as `retry-after` told it."""
    seconds = []

    def wait(policy, response):
        seconds.append(policy.get_retry_after(response))
        return True

    monkeypatch.setattr(Retry, "sleep_for_retry", wait)
    return seconds


@one_by_one(DOCUSIGN)
def test_docusign_rooms_sees(story, gate_of, rooms_snapshots, waits):
    gate = gate_of(story)
    person = Person(story["as"])
    rooms = Rooms(f"http://localhost:{gate.relay.port}")
    client = rooms.with_token("no-longer-a-token") if story.get("login") == "lost" else rooms.as_person(person)

    def call():
        try:
            parameters = {"start_position" if name == "startPosition" else name: value for name, value in story["with"].items()}
            page = client.get_room_users(parameters.pop("roomId"), parameters.pop("accountId"), **parameters)
            return {"returns": ApiClient().sanitize_for_serialization(page)}
        except ApiException as error:
            return {"waits": waits, "raises": name_of(error), "holds": {**vars(error), "headers": told(error.headers)}}

    sent, seen = live_through(story, "docusign-rooms", gate, call, waits)
    if story["sees"] == "permit":
        assert seen["client"]["returns"] == without_nulls(json.loads(sent.body))
    else:
        assert seen["client"]["holds"]["status"] == sent.status
        assert seen["client"]["holds"]["body"] == {"bytes": seen["gate"]["body"]}
        assert seen["client"]["holds"]["headers"] == seen["gate"]["headers"]
    rooms_snapshots.compare(story["story"], seen)


def without_nulls(content: object) -> object:
    """The client's models leave out what is null."""
    if isinstance(content, dict):
        return {name: without_nulls(value) for name, value in content.items() if value is not None}
    return [without_nulls(entry) for entry in content] if isinstance(content, list) else content


def test_the_file_of_docusign_rooms_holds_these_stories_and_no_other(rooms_snapshots):
    rooms_snapshots.close([story["story"] for story in DOCUSIGN])
