"""The people and rooms of the seeded Synapse, and what one may do to them past the gate."""

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from wire import Answer, ask

CLIENT = "/_matrix/client/v3"


@dataclass(frozen=True)
class Person:
    name: str
    token: str

    @property
    def id(self) -> str:
        return f"@{self.name}:localhost"

    @property
    def password(self) -> str:
        return password(self.name)


# In every room: trent made it, bob moderates it, carol is in it; dave was kicked and leo left; ivan is invited and bart
# is banned. Erin is an additional creator where room versions know that. Alice is the server's admin and in no room,
# mallory is an outsider everywhere; o/neil only has a name that must be encoded in a path.
PEOPLE = ("alice", "bart", "bob", "carol", "dave", "erin", "ivan", "leo", "mallory", "o/neil", "trent")
# Version 11 names its creator in the power levels; in version 12 creators stand above them and are not in them.
VERSIONS = ("11", "12")
KINDS = ("private", "public", "world")

MEMBERS = ("trent", "bob", "carol")
FORMER = ("dave", "leo")
OUTSIDERS = ("mallory", "ivan", "bart", "alice")


def password(name: str) -> str:
    return f"{name}-password"


class Town:
    """A seeded Synapse as somebody sees it who talks to it directly, not through the gate."""

    def __init__(self, url: str, seeded: dict) -> None:
        self.url = url
        self.people = {name: Person(name, token) for name, token in seeded["tokens"].items()}
        self.rooms: dict[str, str] = seeded["rooms"]

    def __getitem__(self, name: str) -> Person:
        return self.people[name]

    def ask(self, method: str, target: str, person: Person | None = None, **more) -> Answer:
        return ask(self.url, method, target, token=person.token if person else None, **more)

    def do(self, person: Person, method: str, path: str, body=None) -> dict:
        """A client call that must succeed."""
        answer = self.ask(method, CLIENT + path, person, body=body)
        assert answer.status == 200, (person.name, method, path, answer)
        return answer.json()

    def make_room(self, version: str, kind: str = "private", moderators=("bob",), creators=(), default: int = 0) -> str:
        """Trent makes a room; in version 12 with these additional creators. Who is no moderator has the default level."""
        content = {"history_visibility": "world_readable"}
        world_readable = {"type": "m.room.history_visibility", "state_key": "", "content": content}
        levels = {self[name].id: 50 for name in moderators}
        # From version 12 on a creator stands above the levels and must not be among them.
        if version != "12":
            levels[self["trent"].id] = 100
        wanted = {
            "room_version": version,
            "preset": "public_chat" if kind == "public" else "private_chat",
            "topic": f"a {kind} room",
            "initial_state": [world_readable] if kind == "world" else [],
            "power_level_content_override": {"users": levels, "users_default": default},
            "creation_content": {"additional_creators": [self[name].id for name in creators]} if creators else {},
        }
        return self.do(self["trent"], "POST", "/createRoom", wanted)["room_id"]

    def invite(self, room: str, name: str) -> None:
        self._membership(self["trent"], room, "invite", name)

    def join(self, room: str, name: str) -> None:
        self.invite(room, name)
        self.do(self[name], "POST", f"/rooms/{segment(room)}/join", {})

    def leave(self, room: str, name: str) -> None:
        self.do(self[name], "POST", f"/rooms/{segment(room)}/leave", {})

    def kick(self, room: str, name: str) -> None:
        self._membership(self["trent"], room, "kick", name)

    def ban(self, room: str, name: str) -> None:
        self._membership(self["trent"], room, "ban", name)

    def set_level(self, room: str, name: str, level: int) -> None:
        path = f"/rooms/{segment(room)}/state/m.room.power_levels"
        content = self.do(self["trent"], "GET", path)
        content["users"][self[name].id] = level
        self.do(self["trent"], "PUT", path, content)

    def _membership(self, by: Person, room: str, action: str, name: str) -> None:
        self.do(by, "POST", f"/rooms/{segment(room)}/{action}", {"user_id": self[name].id})


def segment(text: str) -> str:
    """One path segment, with everything encoded that may be."""
    return quote(text, safe="")


def read_seed(folder: Path) -> dict:
    return json.loads((folder / "town.json").read_text())
