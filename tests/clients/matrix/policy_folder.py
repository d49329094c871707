"""Makes an operator's policy folder for Matrix: the shipped one, with policies of their own or a route closed."""

import shutil
import subprocess
from pathlib import Path

from program import program

# Everything else stays as it is shipped; the cases that say otherwise are the operator's to replace.
MODERATORS_ONLY = """
@id("members-moderators")
@reason("moderates the room")
permit (
  principal,
  action in [Matrix::Action::"rooms.members", Matrix::Action::"rooms.joined_members"],
  resource
)
when { context.power.roles.contains("moderator") };
"""

MODERATORS_CASES = """
[[case]]
name = "a moderator lists the members"
request = "GET /_matrix/client/v3/rooms/!r:example.org/joined_members"
subject = { id = "@bob:example.org" }
facts = { power = { roles = ["moderator", "member"] } }
expect = "permit"
by = ["members-moderators"]

[[case]]
name = "a plain member does not"
request = "GET /_matrix/client/v3/rooms/!r:example.org/members"
subject = { id = "@carol:example.org" }
facts = { room = { joined = true }, power = { roles = ["member"] } }
expect = "deny"
reason = "policy_denied"
"""


ROOM_TTL = 'needs = ["room"]\nttl = "10s"\n'
ROOM = 'needs = ["room"]\n'


def matrix_folder(folder: Path, *, policy: str | None = None, closed: tuple[str, ...] = (), own_ttl: bool = True) -> Path:
    """A policy folder with the provider `matrix` only; the policies in it are these when given, and these routes are closed.
    Without `own_ttl` the facts about a room live as long as the configuration says."""
    shipped = folder / "shipped"
    subprocess.run([program(), "init", str(shipped)], check=True, capture_output=True, timeout=30)
    policies = folder / "policies"
    shutil.copytree(shipped / "policies" / "matrix", policies / "matrix")
    if policy is not None:
        (policies / "matrix" / "policy.cedar").write_text(policy)
        (policies / "matrix" / "cases.toml").write_text(MODERATORS_CASES)
    provider = policies / "matrix" / "provider.toml"
    text = provider.read_text()
    if not own_ttl:
        assert text.count(ROOM_TTL) == 2, "the facts `room` and `power` say how long they live"
        text = text.replace(ROOM_TTL, ROOM)
    for route in closed:
        text = close(text, route)
    provider.write_text(text)
    return policies


def close(text: str, route: str) -> str:
    """Turns the `then` of the table that names this route into a denial: the one word that an operator changes."""
    head, named, rest = text.partition(f'"{route}"')
    assert named, f"no route {route!r} in the shipped provider file"
    before, forward, after = rest.partition('then = "forward"')
    assert forward and "[[" not in before, f"the shipped provider file does not leave {route!r} open"
    return head + named + before + 'then = "deny"' + after
