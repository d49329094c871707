"""Stories that the client `docusign-rooms` lives through before the sample DocuSign Rooms server."""

import json

import pytest
from docusign_rooms.client.api_exception import ApiException
from docusign_rooms.models import RoomUserSortingOption
from world import ACCOUNT, ALICE, BOB, CAROL, EMPTY_ROOM, EVE, LARGE_ROOM, MALLORY, SMALL_ROOM

SORTS = (
    RoomUserSortingOption.FIRSTNAMEASC,
    RoomUserSortingOption.FIRSTNAMEDESC,
    RoomUserSortingOption.LASTNAMEASC,
    RoomUserSortingOption.LASTNAMEDESC,
    RoomUserSortingOption.EMAILASC,
    RoomUserSortingOption.EMAILDESC,
)
SPELLINGS = {
    "lower": str.lower,
    "upper": str.upper,
    # As the API reference prints it.
    "camel": lambda sort: sort[0].lower() + sort[1:],
}


@pytest.fixture
def guarded(audit):
    """Demands one decision record from a guarded call to the Rooms server."""

    def demand(decision, reason=None, **more):
        return audit.one("docusign-rooms", "rooms.users", decision, reason=reason, **more)

    return demand


def emails(page):
    return [user.email for user in page.users]


def parsed(refusal):
    """The error as DocuSign's own examples read it: JSON with an errorCode and a message."""
    assert refusal.value.headers["content-type"].startswith("application/json")
    error = json.loads(refusal.value.body)
    assert list(error) == ["errorCode", "message", "referenceId"]
    return error


# Who may see a roster


@pytest.mark.parametrize("person", [BOB, CAROL], ids=["an agent", "a contributor"])
def test_somebody_on_the_roster_sees_the_roster(rooms, guarded, person):
    with guarded("permit"):
        page = rooms.as_person(person).get_room_users(SMALL_ROOM, ACCOUNT)
    assert {BOB.email, CAROL.email} <= set(emails(page))
    assert page.result_set_size == page.total_row_count == len(page.users)
    assert page.start_position == 0
    assert page.next_uri is None
    assert page.prior_uri is None


def test_a_company_admin_sees_a_roster_they_are_not_on(rooms, guarded):
    with guarded("permit"):
        page = rooms.as_person(ALICE).get_room_users(SMALL_ROOM, ACCOUNT)
    assert {BOB.email, CAROL.email} <= set(emails(page))
    assert ALICE.email not in emails(page)


def test_a_company_admin_sees_that_a_room_is_empty(rooms, guarded):
    with guarded("permit"):
        assert rooms.as_person(ALICE).get_room_users(EMPTY_ROOM, ACCOUNT).users == []


@pytest.mark.parametrize(
    ("person", "room"),
    [(EVE, SMALL_ROOM), (BOB, LARGE_ROOM), (MALLORY, SMALL_ROOM)],
    ids=["somebody on no roster", "somebody on another roster", "somebody of another account"],
)
def test_an_outsider_is_told_so_in_a_form_that_the_client_parses(rooms, guarded, person, room):
    with guarded("deny", "policy_denied") as calls, pytest.raises(ApiException) as refusal:
        rooms.as_person(person).get_room_users(room, ACCOUNT)
    assert refusal.value.status == 403
    assert parsed(refusal) == {
        "errorCode": "ROLEGATE_ACCESS_DENIED",
        "message": "You do not have access to this resource.",
        "referenceId": calls.record["id"],
    }
    assert refusal.value.headers["x-request-id"] == calls.record["id"]


def test_both_prefixes_lead_to_the_same_roster(rooms, guarded):
    with guarded("permit", times=2) as calls:
        short, long = (rooms.as_person(BOB, prefix).get_room_users(SMALL_ROOM, ACCOUNT) for prefix in ("", "/restapi"))
    assert emails(short) == emails(long)
    assert [record["target"].split("/v2/")[0] for record in calls.records] == ["", "/restapi"]


@pytest.mark.parametrize("prefix", ["", "/restapi"], ids=["documented", "as clients send it"])
def test_both_prefixes_are_guarded(rooms, guarded, prefix):
    with guarded("deny", "policy_denied"), pytest.raises(ApiException) as refusal:
        rooms.as_person(EVE, prefix).get_room_users(SMALL_ROOM, ACCOUNT)
    assert refusal.value.status == 403


# Parameters


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
@pytest.mark.parametrize("sort", SORTS)
def test_a_sort_value_means_the_same_in_any_case(rooms, guarded, sort, spelling):
    bob = rooms.as_person(BOB)
    with guarded("permit", times=2):
        usual = emails(bob.get_room_users(SMALL_ROOM, ACCOUNT, sort=sort))
        spelled = emails(bob.get_room_users(SMALL_ROOM, ACCOUNT, sort=spelling(sort)))
    assert spelled == usual
    if sort.startswith("Email"):
        assert usual == sorted(usual, reverse=sort.endswith("Desc"))


def test_a_filter_finds_somebody_by_the_beginning_of_their_email(rooms, guarded):
    with guarded("permit"):
        assert emails(rooms.as_person(BOB).get_room_users(SMALL_ROOM, ACCOUNT, filter="carol@")) == [CAROL.email]


@pytest.mark.parametrize("text", ["two words", "one+one", "a + b", "50% é", "a&sort=b"])
def test_a_filter_is_judged_as_the_client_meant_it(rooms, guarded, text):
    with guarded("permit") as calls:
        assert rooms.as_person(BOB).get_room_users(SMALL_ROOM, ACCOUNT, filter=text).users == []
    assert calls.record["context"]["params"]["filter"] == text


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"count": 101}, "count"),
        ({"count": 0}, "count"),
        ({"start_position": -1}, "startPosition"),
        ({"sort": "shoeSizeAsc"}, "sort"),
    ],
    ids=["too many", "none at all", "before the first", "no such order"],
)
def test_a_parameter_out_of_bounds_is_named(rooms, guarded, parameters, named):
    with guarded("deny", "param_invalid", subject=None) as calls, pytest.raises(ApiException) as refusal:
        rooms.as_person(BOB).get_room_users(SMALL_ROOM, ACCOUNT, **parameters)
    assert refusal.value.status == 400
    error = parsed(refusal)
    assert error["errorCode"] == "ROLEGATE_INVALID_PARAMETER"
    assert named in error["message"]
    assert error["referenceId"] == calls.record["id"]


# Credentials


def test_a_refused_token_is_answered_as_docusign_answers_it(rooms, guarded):
    with guarded("deny", "credential_refused", subject=None) as calls, pytest.raises(ApiException) as refusal:
        rooms.with_token("not-a-token").get_room_users(SMALL_ROOM, ACCOUNT)
    assert refusal.value.status == 401
    assert refusal.value.headers["www-authenticate"].startswith("Bearer")
    assert parsed(refusal) == {
        "errorCode": "AUTHORIZATION_INVALID_TOKEN",
        "message": "The access token provided is expired, revoked or malformed.",
        "referenceId": calls.record["id"],
    }


# Paging


def test_a_large_roster_is_paged_to_its_end(rooms, guarded):
    carol = rooms.as_person(CAROL)
    found = []
    with guarded("permit") as calls:
        calls.times = 0
        while True:
            page = carol.get_room_users(LARGE_ROOM, ACCOUNT, count=50, start_position=len(found), sort=RoomUserSortingOption.EMAILASC)
            calls.times += 1
            assert page.start_position == len(found)
            assert page.result_set_size == len(page.users)
            found += emails(page)
            if page.next_uri is None:
                break
            assert len(page.users) == 50
    assert len(found) == len(set(found)) == page.total_row_count > 100
    assert CAROL.email in found
    assert calls.times == -(-len(found) // 50)


def test_a_page_holds_a_hundred_unless_asked_otherwise(rooms, guarded):
    with guarded("permit"):
        page = rooms.as_person(CAROL).get_room_users(LARGE_ROOM, ACCOUNT)
    assert len(page.users) == 100
    assert page.next_uri is not None
