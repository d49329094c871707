"""Routes that no action guards: they pass as they are, and an operator closes them with a word."""

import pytest
from answers import DENIED, is_refusal
from gate import Gate
from policy_folder import matrix_folder
from town import CLIENT, segment

FEDERATION = "/_matrix/federation/v1"
STATE = f"GET {FEDERATION}/state/{{roomId}}"
PROFILE = f"GET {FEDERATION}/query/profile"


@pytest.fixture(scope="module")
def closed(homeserver, tmp_path_factory):
    """A gate that was started with flags and an operator's folder, in which federation tells no state and no profiles."""
    folder = tmp_path_factory.mktemp("closed")
    policies = matrix_folder(folder, closed=(STATE, PROFILE, f"GET {CLIENT}/rooms/{{roomId}}/messages"))
    running = Gate(folder, "--provider", "matrix", "--upstream", homeserver.url, "--policies", str(policies))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def narrow(homeserver, tmp_path_factory):
    """A gate that lets nothing through of the guarded spaces but what its file names."""
    folder = tmp_path_factory.mktemp("narrow")
    config = folder / "rolegate.toml"
    config.write_text(f'[[upstream]]\nprovider = "matrix"\nurl = "{homeserver.url}"\nunlisted = "deny"\n')
    running = Gate(folder, "--config", str(config))
    yield running
    running.stop()


def federation_targets(town):
    room = segment(town.rooms["private 12"])
    return [
        f"{FEDERATION}/state/{room}?event_id=%24x",
        f"{FEDERATION}/query/profile?user_id=@bob:localhost",
    ]


def test_federation_passes_to_synapse_and_is_refused_there(town, gate):
    for target in [*federation_targets(town), f"{FEDERATION}/version"]:
        with gate.audit.none():
            seen = gate.ask("GET", target)
        direct = town.ask("GET", target)
        assert (seen.status, seen.body) == (direct.status, direct.body)


def test_an_operator_closes_a_federation_route_with_a_word(town, closed, homeserver):
    for target in federation_targets(town):
        before = len(closed.audit.decisions())
        refused = closed.ask("GET", target)
        is_refusal(refused, 403, DENIED)
        (record,) = closed.audit.decisions()[before:]
        assert (record["decision"], record["reason"]) == ("deny", "route_unlisted")
        assert homeserver.seen_so_far(record["id"]) == []
    # The others of federation stay open.
    assert closed.ask("GET", f"{FEDERATION}/version").json()["server"]["name"] == "Synapse"


def test_a_closed_route_is_closed_with_the_slash_that_synapse_forgives(town, closed, homeserver):
    target = f"{FEDERATION}/state/{segment(town.rooms['private 12'])}/"
    assert town.ask("GET", target).status == 401, "Synapse knows this spelling"
    before = len(closed.audit.decisions())
    refused = closed.ask("GET", target)
    assert refused.status in (400, 403), refused
    (record,) = closed.audit.decisions()[before:]
    assert record["decision"] == "deny"
    assert homeserver.seen_so_far(record["id"]) == []


@pytest.mark.parametrize("spelled", ["{r}", "{p}"])
def test_a_closed_route_is_closed_in_each_legal_spelling(town, closed, spelled):
    room = town.rooms["private 12"]
    target = f"{CLIENT}/rooms/{spelled.format(r=segment(room), p=room)}/messages?dir=b"
    assert town.ask("GET", target, town["carol"]).status == 200
    is_refusal(closed.ask("GET", target, town["carol"]), 403, DENIED)


def test_a_narrow_gate_lets_through_what_is_named_and_nothing_else(town, narrow):
    room = segment(town.rooms["private 12"])
    for target, status in [
        (f"{CLIENT}/rooms/{room}/joined_members", 200),
        (f"{CLIENT}/sync?timeout=0", 200),
        (f"{CLIENT}/rooms/{room}/messages?dir=b", 200),
        (f"{CLIENT}/pushers", 403),
        (f"{CLIENT}/devices", 403),
        ("/_matrix/nothing/at/all", 403),
    ]:
        assert narrow.ask("GET", target, town["carol"]).status == status, target


@pytest.mark.parametrize(
    "target",
    [
        "/_matrix/client/versions",
        f"{CLIENT}/login",
        f"{CLIENT}/capabilities",
        f"{CLIENT}/pushrules/",
        f"{CLIENT}/devices",
        f"{CLIENT}/publicRooms",
        f"{CLIENT}/directory/room/%23nothing%2Fhere%3Alocalhost",
        f"{CLIENT}/nothing/at/all",
        "/_matrix/client/v1/mutual_rooms?user_id=@bob:localhost",
        "/_synapse/admin/v1/server_version",
        "/_matrix/key/v2/server/nothing",
        "/.well-known/matrix/client",
        "/health",
        "/",
    ],
)
def test_what_nobody_guards_is_answered_as_without_the_gate(town, gate, target):
    with gate.audit.none():
        seen = gate.ask("GET", target, town["carol"])
    direct = town.ask("GET", target, town["carol"])
    assert seen.status == direct.status
    assert seen.headers.get("content-type") == direct.headers.get("content-type")
    if target not in (f"{CLIENT}/devices",):
        assert seen.body == direct.body
