"""Stories that the client `rocketchat-API` lives through before the sample Rocket.Chat server."""

from unittest.mock import ANY

import pytest
from rocketchat_API.APIExceptions.RocketExceptions import (
    RocketApiException,
    RocketAuthenticationException,
    RocketBadStatusCodeException,
)
from world import ALICE, AUDREY, BOARDROOM, BOB, CAROL, CHAT_PEOPLE, EVE, GENERAL, GUS, TOWN_SQUARE

NOT_LOGGED_IN = '{"status":"error","message":"You must be logged in to do this."}'
NOT_PERMITTED = '{"success":false,"error":"User does not have the permissions required for this action [error-unauthorized]"}'


@pytest.fixture
def guarded(audit):
    """Demands one decision record from a guarded call to the chat server."""

    def demand(action, decision, by=None, reason=None, **more):
        return audit.one("rocketchat", action, decision, subject=by.id if by else None, reason=reason, **more)

    return demand


def assert_not_permitted(refusal):
    assert refusal.value.status_code == 403
    assert refusal.value.response == NOT_PERMITTED
    assert refusal.value.error == "User does not have the permissions required for this action [error-unauthorized]"


def assert_not_logged_in(refusal):
    assert refusal.value.status_code == 401
    assert refusal.value.response == NOT_LOGGED_IN
    assert refusal.value.response_json == {"status": "error", "message": "You must be logged in to do this."}


def usernames(users):
    return [user["username"] for user in users]


def roles_by_username(answer):
    return {entry["u"]["username"]: entry["roles"] for entry in answer["roles"]}


# Logging in and out


def test_a_person_logs_in_and_is_known_from_then_on(chat, audit, guarded):
    with audit.none():
        client = chat.log_in(BOB)
        assert client.headers["X-User-Id"] == BOB.id
        assert client.me()["username"] == "bob"
    with guarded("rooms.roles", "permit", by=BOB):
        assert client.call_api_get("rooms.roles", rid=BOARDROOM)["success"] is True


def test_a_wrong_password_is_refused_as_the_server_refuses_it(chat, audit):
    with audit.none(), pytest.raises(RocketAuthenticationException):
        chat.log_in_with("bob", "not-his-password")


def test_after_logging_out_the_token_opens_nothing(chat, audit, guarded):
    client = chat.log_in(CAROL)
    with guarded("rooms.roles", "permit", by=CAROL):
        client.call_api_get("rooms.roles", rid=BOARDROOM)
    with audit.none():
        assert client.logout()["status"] == "success"
    # Facts may outlive the token for their age: then the server itself refuses, and rolegate forgets the token.
    with audit.one("rocketchat", "rooms.roles", ANY, reason=ANY), pytest.raises(RocketBadStatusCodeException) as refusal:
        client.call_api_get("rooms.roles", rid=BOARDROOM)
    assert_not_logged_in(refusal)
    with guarded("rooms.roles", "deny", reason="credential_refused"), pytest.raises(RocketBadStatusCodeException) as refusal:
        client.call_api_get("rooms.roles", rid=BOARDROOM)
    assert_not_logged_in(refusal)


# users.info


def test_everybody_reads_their_own_record_with_their_rooms(chat, guarded):
    with guarded("users.info", "permit", by=BOB):
        user = chat.as_person(BOB).users_info(user_id=BOB.id, includeUserRooms="true")["user"]
    assert user["_id"] == BOB.id
    assert user["username"] == "bob"
    assert BOARDROOM in [room["rid"] for room in user["rooms"]]


def test_reading_oneself_by_username_counts_as_oneself(chat, guarded):
    with guarded("users.info", "permit", by=CAROL):
        user = chat.as_person(CAROL).users_info(username="carol", includeUserRooms="true")["user"]
    assert user["_id"] == CAROL.id
    assert BOARDROOM in [room["rid"] for room in user["rooms"]]


def test_everybody_reads_the_public_record_of_somebody_else(chat, guarded):
    with guarded("users.info", "permit", by=BOB):
        user = chat.as_person(BOB).users_info(username="carol")["user"]
    assert user["_id"] == CAROL.id
    assert "rooms" not in user
    assert "emails" not in user


@pytest.mark.parametrize("asking", [{"includeUserRooms": "true"}, {"fields": '{"userRooms":1}'}], ids=["new server", "old server"])
def test_the_rooms_of_somebody_else_are_left_out(chat, guarded, asking):
    with guarded("users.info", "permit", by=EVE):
        user = chat.as_person(EVE).users_info(user_id=BOB.id, **asking)["user"]
    assert user["username"] == "bob"
    assert "rooms" not in user


def test_an_admin_sees_the_rooms_of_somebody_else(chat, guarded):
    with guarded("users.info", "permit", by=ALICE):
        user = chat.as_person(ALICE).users_info(user_id=BOB.id, includeUserRooms="true")["user"]
    assert BOARDROOM in [room["rid"] for room in user["rooms"]]


def test_an_unknown_user_is_answered_by_the_server(chat, guarded):
    with guarded("users.info", "permit", by=BOB), pytest.raises(RocketApiException) as refusal:
        chat.as_person(BOB).users_info(user_id="nobodyXPnMktTFbNp")
    assert refusal.value.status_code == 400
    assert refusal.value.response_json == {"success": False, "error": "User not found."}


# rooms.roles


def test_a_member_sees_who_runs_a_private_room(chat, guarded):
    with guarded("rooms.roles", "permit", by=CAROL):
        answer = chat.as_person(CAROL).call_api_get("rooms.roles", rid=BOARDROOM)
    assert roles_by_username(answer) == {"bob": ["owner"], "carol": ["moderator"]}
    assert {entry["rid"] for entry in answer["roles"]} == {BOARDROOM}


@pytest.mark.parametrize("person", [EVE, ALICE], ids=["a user", "an admin"])
def test_an_outsider_does_not_see_who_runs_a_private_room(chat, guarded, person):
    with guarded("rooms.roles", "deny", by=person, reason="policy_denied"), pytest.raises(RocketApiException) as refusal:
        chat.as_person(person).call_api_get("rooms.roles", rid=BOARDROOM)
    assert_not_permitted(refusal)


def test_everybody_sees_who_runs_a_public_room(chat, guarded):
    with guarded("rooms.roles", "permit", by=EVE):
        answer = chat.as_person(EVE).call_api_get("rooms.roles", rid=TOWN_SQUARE)
    roles = roles_by_username(answer)
    assert roles["alice"] == ["owner"]
    assert roles["bob"] == ["moderator"]


def test_a_guest_outside_a_public_room_sees_nothing_of_it(chat, guarded):
    with guarded("rooms.roles", "deny", by=GUS, reason="policy_denied"), pytest.raises(RocketApiException) as refusal:
        chat.as_person(GUS).call_api_get("rooms.roles", rid=GENERAL)
    assert_not_permitted(refusal)


def test_an_unknown_room_looks_like_a_private_one(chat, guarded):
    with guarded("rooms.roles", "deny", by=EVE, reason="policy_denied"), pytest.raises(RocketApiException) as refusal:
        chat.as_person(EVE).call_api_get("rooms.roles", rid="000000000000000000000000")
    assert_not_permitted(refusal)


# roles.getUsersInRole


def test_an_admin_lists_the_holders_of_a_role(chat, guarded):
    with guarded("roles.getUsersInRole", "permit", by=ALICE):
        assert usernames(chat.as_person(ALICE).roles_get_users_in_role("auditor")) == ["audrey"]


def test_an_admin_pages_through_the_holders_of_a_role_to_the_end(chat, guarded):
    alice = chat.as_person(ALICE)
    with guarded("roles.getUsersInRole", "permit", by=ALICE) as calls:
        everybody = usernames(alice.roles_get_users_in_role("user", count=2))
        # The client asks until a page is short of two.
        calls.times = len(everybody) // 2 + 1
    assert everybody == sorted(set(everybody))
    assert {"alice", "audrey", "bob", "carol", "eve"} <= set(everybody)
    assert [record["context"]["params"]["offset"] for record in calls.records] == [2 * page for page in range(calls.times)]


def test_an_admin_lists_the_holders_of_a_role_in_a_room(chat, guarded):
    with guarded("roles.getUsersInRole", "permit", by=ALICE):
        assert usernames(chat.as_person(ALICE).roles_get_users_in_role("owner", roomId=BOARDROOM)) == ["bob"]


@pytest.mark.parametrize("person", [BOB, AUDREY], ids=["a user", "an auditor"])
def test_only_an_admin_lists_the_holders_of_a_role(chat, guarded, person):
    with guarded("roles.getUsersInRole", "deny", by=person, reason="policy_denied"), pytest.raises(RocketApiException) as refusal:
        chat.as_person(person).roles_get_users_in_role("admin")
    assert_not_permitted(refusal)


def test_an_unknown_role_is_answered_by_the_server(chat, guarded):
    with guarded("roles.getUsersInRole", "permit", by=ALICE), pytest.raises(RocketApiException) as refusal:
        chat.as_person(ALICE).roles_get_users_in_role("no-such-role")
    assert refusal.value.status_code == 400
    assert refusal.value.error == "[error-invalid-roleId]"
    assert refusal.value.error_type == "error-invalid-roleId"


# audit/rooms.members


def test_an_auditor_lists_the_members_of_a_room_they_are_not_in(chat, guarded):
    with guarded("audit.rooms.members", "permit", by=AUDREY):
        answer = chat.as_person(AUDREY).call_api_get("audit/rooms.members", roomId=BOARDROOM, count=5, sort='{"username":-1}')
    assert usernames(answer["members"]) == ["carol", "bob"]
    assert (answer["count"], answer["offset"], answer["total"]) == (2, 0, 2)


def test_an_auditor_looks_for_one_member(chat, guarded):
    with guarded("audit.rooms.members", "permit", by=AUDREY):
        answer = chat.as_person(AUDREY).call_api_get("audit/rooms.members", roomId=BOARDROOM, filter="car")
    assert usernames(answer["members"]) == ["carol"]


def test_a_user_does_not_audit_even_their_own_room(chat, guarded):
    with guarded("audit.rooms.members", "deny", by=BOB, reason="policy_denied"), pytest.raises(RocketApiException) as refusal:
        chat.as_person(BOB).call_api_get("audit/rooms.members", roomId=BOARDROOM)
    assert_not_permitted(refusal)


# Parameters: what the client parses is what the real server would have sent


@pytest.mark.parametrize(
    ("path", "params", "action", "reason", "body"),
    [
        pytest.param(
            "audit/rooms.members",
            {},
            "audit.rooms.members",
            "param_missing",
            '{"success":false,"error":"must have required property \'roomId\' [invalid-params]","errorType":"invalid-params"}',
            id="no room to audit",
        ),
        pytest.param(
            "audit/rooms.members",
            {"roomId": BOARDROOM, "count": "abc"},
            "audit.rooms.members",
            "param_invalid",
            '{"success":false,"error":"must be number [invalid-params]","errorType":"invalid-params"}',
            id="a count that is no number",
        ),
        pytest.param(
            "audit/rooms.members",
            {"roomId": BOARDROOM, "limit": "5"},
            "audit.rooms.members",
            "param_unknown",
            '{"success":false,"error":"must NOT have additional properties [invalid-params]","errorType":"invalid-params"}',
            id="a name that the audit does not know",
        ),
        pytest.param(
            "audit/rooms.members",
            {"roomId": BOARDROOM, "sort": "username"},
            "audit.rooms.members",
            "param_invalid",
            '{"success":false,"error":"Invalid sort parameter provided: \\"username\\" [error-invalid-sort]",'
            '"errorType":"error-invalid-sort","details":{"helperMethod":"parseJsonQuery"}}',
            id="a sort that is no JSON",
        ),
        pytest.param(
            "roles.getUsersInRole",
            {},
            "roles.getUsersInRole",
            "param_missing",
            '{"success":false,"error":"Query param \\"role\\" is required [error-param-not-provided]","errorType":"error-param-not-provided"}',
            id="no role",
        ),
        pytest.param(
            "rooms.roles",
            {},
            "rooms.roles",
            "param_missing",
            '{"success":false,"errorType":"error-invalid-params","error":"must have required property \'rid\'"}',
            id="no room",
        ),
        pytest.param(
            "rooms.roles",
            {"rid": BOARDROOM, "count": 5},
            "rooms.roles",
            "param_unknown",
            '{"success":false,"errorType":"error-invalid-params","error":"must NOT have additional properties"}',
            id="a name that the room's roles do not know",
        ),
        pytest.param(
            "users.info",
            {},
            "users.info",
            "param_missing",
            '{"success":false,"errorType":"error-invalid-params","error":"'
            "must have required property 'userId'\\n must have required property 'username'\\n must have required property 'importId'\\n "
            "must have required property 'email'\\n must have required property 'freeSwitchExtension'\\n must match a schema in anyOf\"}",
            id="nobody named",
        ),
        pytest.param(
            "users.info",
            {"userId": BOB.id, "username": "bob"},
            "users.info",
            "param_repeated",
            '{"success":false,"errorType":"error-invalid-params","error":"'
            "must NOT have additional properties\\n must NOT have additional properties\\n must have required property 'importId'\\n "
            "must have required property 'email'\\n must have required property 'freeSwitchExtension'\\n must match a schema in anyOf\"}",
            id="somebody named twice",
        ),
    ],
)
def test_a_malformed_call_is_answered_in_the_words_of_the_server(chat, guarded, path, params, action, reason, body):
    with guarded(action, "deny", reason=reason), pytest.raises(RocketApiException) as refusal:
        chat.as_person(BOB).call_api_get(path, **params)
    assert refusal.value.status_code == 400
    assert refusal.value.response == body


def test_a_list_that_the_client_spells_with_brackets_is_refused(chat, guarded):
    with guarded("rooms.roles", "deny", reason="param_invalid"), pytest.raises(RocketApiException) as refusal:
        chat.as_person(BOB).call_api_get("rooms.roles", rid=[BOARDROOM])
    assert refusal.value.status_code == 400
    assert refusal.value.error_type == "error-invalid-params"


# Credentials


@pytest.mark.parametrize(
    ("user_id", "token"),
    [(BOB.id, "x" * 43), (ALICE.id, BOB.token), ("nobodyXPnMktTFbNp", BOB.token)],
    ids=["an invented token", "the token of somebody else", "an invented user"],
)
def test_a_refused_credential_is_answered_as_the_server_answers_it(chat, guarded, user_id, token):
    with guarded("users.info", "deny", reason="credential_refused"), pytest.raises(RocketBadStatusCodeException) as refusal:
        chat.with_token(user_id, token).users_info(user_id=BOB.id)
    assert_not_logged_in(refusal)


def test_a_call_without_credential_is_answered_as_the_server_answers_it(chat, guarded):
    with guarded("users.info", "deny", reason="credential_missing"), pytest.raises(RocketBadStatusCodeException) as refusal:
        chat.as_nobody().users_info(user_id=BOB.id)
    assert_not_logged_in(refusal)


# What nobody guards


def test_an_unguarded_list_pages_to_its_end(chat, audit):
    with audit.none():
        members = usernames(chat.as_person(BOB).channels_members(room_id=GENERAL, count=2))
    assert sorted(members) == sorted(person.name for person in CHAT_PEOPLE if person is not GUS)
