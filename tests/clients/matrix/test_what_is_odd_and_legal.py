"""Requests of real clients that are odd and that Synapse takes: the gate judges them and Synapse answers as without it."""

import pytest
from answers import DENIED, content, is_refusal
from town import CLIENT, segment
from wire import ask

ADMIN = "/_synapse/admin"
# What widely used admin pages add to each tab of a room and of a user.
PAGE = "from=0&limit=10&order_by=id&dir=f"
FORM = [("Content-Type", "application/x-www-form-urlencoded")]
JSON = [("Content-Type", "application/json")]
SEARCHES = f"{CLIENT}/user_directory/search"
SEARCH = b'{"search_term":"carol","limit":3}'
# Synapse has test rooms of this name in public reports; their ids hold a slash and a letter beyond the first plane.
CAT = segment("!test/v6 \N{CAT}\N{VARIATION SELECTOR-16}:localhost")


def alike(seen, direct):
    assert (seen.status, content(seen)) == (direct.status, content(direct))


@pytest.mark.parametrize(
    ("action", "path"),
    [
        ("admin.rooms.members", "/v1/rooms/{room}/members"),
        ("admin.rooms.state", "/v1/rooms/{room}/state"),
        ("admin.user.joined_rooms", "/v1/users/@carol:localhost/joined_rooms"),
        ("admin.user.memberships", "/v1/users/@carol:localhost/memberships"),
    ],
)
def test_the_tabs_of_admin_pages_show_what_synapse_shows(town, gate, guarded, action, path):
    target = f"{ADMIN}{path}?{PAGE}".format(room=segment(town.rooms["private 12"]))
    with guarded(action, "permit", subject="@alice:localhost"):
        seen = gate.ask("GET", target, town["alice"])
    assert seen.status == 200
    alike(seen, town.ask("GET", target, town["alice"]))


def test_a_parameter_that_synapse_takes_twice_may_come_twice(town, gate, guarded):
    target = f"{ADMIN}/v2/users?from=0&limit=10&not_user_type=bot&not_user_type=support"
    with guarded("admin.users", "permit"):
        seen = gate.ask("GET", target, town["alice"])
    direct = town.ask("GET", target, town["alice"])
    names = [[user["name"] for user in answer.json()["users"]] for answer in (seen, direct)]
    assert seen.status == direct.status == 200
    assert names[0] == names[1] != []


@pytest.mark.parametrize("headers", [[], FORM, JSON], ids=["no type", "a form's type", "JSON's type"])
@pytest.mark.parametrize("scope", [b"", b',"search_scope":"local"'], ids=["plain", "with a scope"])
def test_a_search_is_json_whatever_it_calls_itself(town, gate, guarded, headers, scope):
    body = SEARCH[:-1] + scope + b"}"
    with guarded("user_directory.search", "permit"):
        seen = gate.ask("POST", SEARCHES, town["bob"], headers=headers, body=body)
    assert seen.status == 200
    alike(seen, town.ask("POST", SEARCHES, town["bob"], headers=headers, body=body))


def test_a_guarded_request_may_have_an_empty_object_as_its_body(town, gate, guarded):
    target = f"{ADMIN}/v1/rooms/{segment(town.rooms['private 12'])}/members"
    with guarded("admin.rooms.members", "permit"):
        seen = gate.ask("GET", target, town["alice"], body=b"{}")
    assert seen.status == 200
    alike(seen, town.ask("GET", target, town["alice"], body=b"{}"))


@pytest.mark.parametrize("door", ["members", "state"])
def test_a_room_whose_id_holds_a_slash_is_judged_and_asked_for(town, gate, guarded, door):
    target = f"{ADMIN}/v1/rooms/{CAT}/{door}"
    with guarded(f"admin.rooms.{door}", "permit"):
        seen = gate.ask("GET", target, town["alice"])
    alike(seen, town.ask("GET", target, town["alice"]))
    with guarded(f"admin.rooms.{door}", "deny", "policy_denied"):
        is_refusal(gate.ask("GET", target, town["mallory"]), 403, DENIED)


@pytest.mark.parametrize("length", [40, 256, 284, 2_000])
def test_a_token_of_the_server_is_as_long_as_the_server_makes_it(town, gate, guarded, length):
    room = segment(town.rooms["private 11"])
    target = f"{CLIENT}/rooms/{room}/members?not_membership=leave&at=s{'1_' * (length // 2)}"
    with guarded("rooms.members", "permit"):
        seen = gate.ask("GET", target, town["bob"])
    alike(seen, town.ask("GET", target, town["bob"]))


def test_a_filter_with_raw_quotes_passes(town, gate):
    target = CLIENT + '/sync?timeout=0&filter={"room":{}}'
    seen, direct = (who.ask("GET", target, town["carol"]) for who in (gate, town))
    assert seen.status == direct.status == 200
    assert seen.json()["rooms"]["join"].keys() == direct.json()["rooms"]["join"].keys()


class TestAnApplicationService:
    """Its users are in rooms, and it asks with a token of its own who else is."""

    @pytest.fixture(scope="class")
    def service(self, homeserver):
        return homeserver.service

    @pytest.fixture(scope="class")
    def ghost(self, town, service):
        """One of its users, in the public room."""
        body = {"type": "m.login.application_service", "username": "_ghost_x"}
        made = ask(town.url, "POST", f"{CLIENT}/register", token=service, body=body)
        assert made.status == 200, made
        room = segment(town.rooms["public 11"])
        joined = ask(town.url, "POST", f"{CLIENT}/join/{room}?user_id=@_ghost_x:localhost", token=service, body={})
        assert joined.status == 200, joined
        return "@_ghost_x:localhost"

    def target(self, town, kind):
        return f"{CLIENT}/rooms/{segment(town.rooms[kind])}/joined_members"

    def test_it_sees_the_members_of_a_room_that_one_of_its_users_is_in(self, town, gate, guarded, service, ghost):
        with guarded("rooms.joined_members", "permit"):
            seen = ask(gate.url, "GET", self.target(town, "public 11"), token=service)
        assert seen.status == 200
        assert ghost in seen.json()["joined"]
        alike(seen, ask(town.url, "GET", self.target(town, "public 11"), token=service))

    def test_it_sees_nothing_of_a_room_that_none_of_its_users_is_in(self, town, gate, guarded, service, ghost):
        with guarded("rooms.joined_members", "deny", "policy_denied"):
            refused = ask(gate.url, "GET", self.target(town, "private 12"), token=service)
        is_refusal(refused, 403, DENIED)
        assert ask(town.url, "GET", self.target(town, "private 12"), token=service).status == 403

    def test_it_may_not_ask_as_one_of_its_users(self, town, gate, service, ghost):
        refused = ask(gate.url, "GET", f"{self.target(town, 'public 11')}?user_id={ghost}", token=service)
        assert refused.status == 400
