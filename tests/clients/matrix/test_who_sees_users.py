"""Who sees what of users: profiles, the directory, one's own rooms, and what Synapse tells its administrators."""

import pytest
from answers import DENIED, NO_TOKEN, REFUSED_TOKEN, content, is_refusal
from town import CLIENT, segment

ADMIN = "/_synapse/admin"
ADMIN_DOORS = {
    "admin.rooms.members": f"{ADMIN}/v1/rooms/{{room}}/members",
    "admin.rooms.state": f"{ADMIN}/v1/rooms/{{room}}/state",
    "admin.room": f"{ADMIN}/v1/rooms/{{room}}",
    "admin.rooms": f"{ADMIN}/v1/rooms",
    "admin.users": f"{ADMIN}/v2/users?from=0&limit=3",
    "admin.user": f"{ADMIN}/v2/users/@carol:localhost",
    "admin.user.admin": f"{ADMIN}/v1/users/@alice:localhost/admin",
    "admin.user.joined_rooms": f"{ADMIN}/v1/users/@carol:localhost/joined_rooms",
    "admin.user.memberships": f"{ADMIN}/v1/users/@carol:localhost/memberships",
    "admin.whois": f"{ADMIN}/v1/whois/@carol:localhost",
}
JSON = [("Content-Type", "application/json")]
# These tell when somebody was last seen, which moves.
MOVES = {"admin.whois", "admin.user", "admin.users"}


def admin_door(town, action):
    return ADMIN_DOORS[action].format(room=segment(town.rooms["private 12"]))


@pytest.mark.parametrize("action", ADMIN_DOORS)
def test_the_servers_admin_gets_what_synapse_answers(town, gate, guarded, action):
    target = admin_door(town, action)
    with guarded(action, "permit", subject="@alice:localhost"):
        seen = gate.ask("GET", target, town["alice"])
    direct = town.ask("GET", target, town["alice"])
    assert seen.status == direct.status == 200
    if action in MOVES:
        assert seen.json().keys() == direct.json().keys()
    else:
        assert content(seen) == content(direct)


@pytest.mark.parametrize("name", ["trent", "bob", "carol", "mallory"])
@pytest.mark.parametrize("action", [action for action in ADMIN_DOORS if action != "admin.whois"])
def test_nobody_else_gets_anything_of_the_admin_api_not_even_a_rooms_creator(town, gate, guarded, action, name):
    with guarded(action, "deny", "policy_denied", subject=town[name].id):
        refused = gate.ask("GET", admin_door(town, action), town[name])
    is_refusal(refused, 403, DENIED)


@pytest.mark.parametrize("action", ADMIN_DOORS)
def test_the_admin_api_needs_a_login(town, gate, guarded, action):
    with guarded(action, "deny", "credential_missing", subject=None):
        is_refusal(gate.ask("GET", admin_door(town, action)), 401, NO_TOKEN)
    with guarded(action, "deny", "credential_refused", subject=None):
        refused = gate.ask("GET", admin_door(town, action), headers=[("Authorization", "Bearer syt_nobody")])
    is_refusal(refused, 401, REFUSED_TOKEN)


def test_both_versions_of_the_list_of_users_are_guarded(town, gate, guarded):
    for version in ("v2", "v3"):
        target = f"{ADMIN}/{version}/users"
        with guarded("admin.users", "permit"):
            seen = gate.ask("GET", target, town["alice"]).json()
        # Besides the people there are the users of an application service.
        assert seen["total"] == town.ask("GET", target, town["alice"]).json()["total"] >= len(town.people)
        with guarded("admin.users", "deny", "policy_denied"):
            is_refusal(gate.ask("GET", target, town["mallory"]), 403, DENIED)


@pytest.mark.parametrize(
    "target",
    [f"{ADMIN}/v2/users/", f"{ADMIN}/v2//users", f"{ADMIN}/v2/Users", f"{ADMIN}/v2/%75sers", "/_synapse/%61dmin/v2/users"],
)
def test_no_spelling_shows_the_list_of_users_to_somebody_else(town, gate, target):
    refused = gate.ask("GET", target, town["mallory"])
    assert refused.status >= 400, refused
    assert b"@alice" not in refused.body


@pytest.mark.parametrize(
    "prefix",
    [f"{ADMIN}/v1/whois", *(f"/_matrix/client/{prefix}/admin/whois" for prefix in ("api/v1", "r0", "v3", "unstable"))],
)
def test_one_sees_ones_own_sessions_and_only_the_admin_those_of_others(town, gate, guarded, prefix):
    with guarded("admin.whois", "permit", subject="@carol:localhost"):
        assert gate.ask("GET", f"{prefix}/@carol:localhost", town["carol"]).json()["user_id"] == "@carol:localhost"
    with guarded("admin.whois", "permit", subject="@alice:localhost"):
        assert gate.ask("GET", f"{prefix}/@carol:localhost", town["alice"]).json()["user_id"] == "@carol:localhost"
    with guarded("admin.whois", "deny", "policy_denied", subject="@bob:localhost"):
        is_refusal(gate.ask("GET", f"{prefix}/@carol:localhost", town["bob"]), 403, DENIED)


# What every login may ask


@pytest.mark.parametrize("prefix", ["api/v1", "r0", "v3", "unstable"])
@pytest.mark.parametrize("field", ["", "/displayname", "/avatar_url"])
def test_a_profile_is_for_every_login_and_for_nobody_without_one(town, gate, guarded, prefix, field):
    target = f"/_matrix/client/{prefix}/profile/@bob:localhost{field}"
    action = "profile.field" if field else "profile"
    with guarded(action, "permit", subject="@mallory:localhost"):
        seen = gate.ask("GET", target, town["mallory"])
    assert (seen.status, seen.json()) == (200, town.ask("GET", target, town["mallory"]).json())
    with guarded(action, "deny", "credential_missing", subject=None):
        is_refusal(gate.ask("GET", target), 401, NO_TOKEN)


def test_one_may_change_ones_own_profile_through_the_gate(town, gate):
    target = f"{CLIENT}/profile/@leo:localhost/displayname"
    assert gate.ask("PUT", target, town["leo"], body={"displayname": "Leo the Late"}).status == 200
    assert town.ask("GET", target).json() == {"displayname": "Leo the Late"}
    assert gate.ask("PUT", target, town["leo"], body={"displayname": "leo"}).status == 200


@pytest.mark.parametrize("prefix", ["r0", "v3", "unstable"])
def test_the_directory_is_searched_by_every_login(town, gate, guarded, prefix):
    target = f"/_matrix/client/{prefix}/user_directory/search"
    wanted = {"search_term": "bo", "limit": 5}
    with guarded("user_directory.search", "permit", subject="@mallory:localhost"):
        found = gate.ask("POST", target, town["mallory"], body=wanted)
    assert found.json() == town.ask("POST", target, town["mallory"], body=wanted).json()
    assert [user["user_id"] for user in found.json()["results"]] == ["@bob:localhost"]
    with guarded("user_directory.search", "deny", "credential_missing", subject=None):
        is_refusal(gate.ask("POST", target, body=wanted), 401, NO_TOKEN)


@pytest.mark.parametrize(
    "body",
    [
        b'{"search_term":"zz","search_term":"bo"}',
        b'{"search_term":"bo"} {}',
        b'\xef\xbb\xbf{"search_term":"bo"}',
        '{"search_term":"bo"}'.encode("utf-16"),
        b'{"search_term":"bo","limit":NaN}',
        b'{"search_term":["bo"]}',
        b'{"search_term":5}',
        b'{"search_term":null}',
        b'{"limit":5}',
        b'["bo"]',
        b'{"search_term":"bo"',
        b"",
    ],
)
def test_a_search_that_could_be_read_in_two_ways_is_not_made(town, gate, body):
    refused = gate.ask("POST", f"{CLIENT}/user_directory/search", town["carol"], body=body, headers=JSON)
    assert refused.status == 400, refused
    assert refused.json()["errcode"] in ("M_INVALID_PARAM", "M_MISSING_PARAM", "M_NOT_JSON", "M_BAD_JSON")
    assert b"@bob" not in refused.body


def test_a_search_is_sent_on_as_it_was_judged(town, gate, guarded):
    body = b'{ "limit":5,\n "search_term": "\\u0062o" }'
    with guarded("user_directory.search", "permit") as calls:
        found = gate.ask("POST", f"{CLIENT}/user_directory/search", town["carol"], body=body, headers=JSON)
    assert [user["user_id"] for user in found.json()["results"]] == ["@bob:localhost"]
    assert calls.record["context"]["params"] == {"limit": 5, "search_term": "bo"}


@pytest.mark.parametrize("prefix", ["api/v1", "r0", "v3", "unstable"])
def test_everybody_sees_the_rooms_that_they_are_in_themselves(town, gate, guarded, prefix):
    target = f"/_matrix/client/{prefix}/joined_rooms"
    with guarded("joined_rooms", "permit", subject="@carol:localhost"):
        seen = gate.ask("GET", target, town["carol"])
    assert set(town.rooms.values()) <= set(seen.json()["joined_rooms"])
    with guarded("joined_rooms", "permit", subject="@mallory:localhost"):
        assert gate.ask("GET", target, town["mallory"]).json() == {"joined_rooms": []}
