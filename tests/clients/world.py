"""The people and rooms of the sample servers, as `rolegate demo` sets them up."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Person:
    """Somebody with an account on the sample chat server, on the sample DocuSign account, or on both."""

    name: str
    id: str | None = None

    @property
    def password(self) -> str:
        return f"{self.name}-password"

    @property
    def token(self) -> str:
        """A Rocket.Chat login token that never ends."""
        return f"{self.name}-token"

    @property
    def bearer(self) -> str:
        """A DocuSign access token."""
        return f"{self.name}-ds-token"

    @property
    def email(self) -> str:
        return f"{self.name}@example.org"


# Rocket.Chat: alice is an admin, audrey an auditor, gus a guest, the others ordinary users.
# DocuSign: alice is a company admin, eve is on no roster, mallory belongs to another account.
ALICE = Person("alice", "aLiceXPnMktTFbNpw")
AUDREY = Person("audrey", "audreyD4sK2mVx9Qw")
BOB = Person("bob", "bobJKa7R9zu2DinBh")
CAROL = Person("carol", "caroL5fRTXMt7DMJb")
EVE = Person("eve", "eve6GFJ3tbmHiyHba")
GUS = Person("gus", "gus8kQw3ErTy5UiOp")
MALLORY = Person("mallory")

CHAT_PEOPLE = (ALICE, AUDREY, BOB, CAROL, EVE, GUS)

# Everybody but gus is a member.
GENERAL = "GENERAL"
# Public: alice owns it, bob moderates it.
TOWN_SQUARE = "66cd971f6fcbb8e8b3cf8e69"
# Private: bob owns it, carol moderates it, nobody else is in it.
BOARDROOM = "658282732dd9f928ad989e98"

ACCOUNT = "39b2c83e-7d4f-4e0b-9d3a-1f2e3d4c5b6a"
# Bob and carol are on the roster.
SMALL_ROOM = "1234"
# Carol is on the roster, with more than a hundred others.
LARGE_ROOM = "5678"
EMPTY_ROOM = "9999"
