"""Makes a folder with a Synapse that has its people and rooms: `python seed.py FOLDER`."""

import hashlib
import hmac
import json
import sys
from pathlib import Path

from homeserver import Homeserver, registration_secret
from town import FORMER, KINDS, MEMBERS, PEOPLE, VERSIONS, Town, password
from wire import ask


def register(url: str, secret: str, name: str, admin: bool) -> str:
    """Registers somebody with the server's shared secret, as its own command does; the token of their first login."""
    path = "/_synapse/admin/v1/register"
    nonce = ask(url, "GET", path).json()["nonce"]
    signed = "\0".join((nonce, name, password(name), "admin" if admin else "notadmin"))
    mac = hmac.new(secret.encode(), signed.encode(), hashlib.sha1).hexdigest()
    wanted = {"nonce": nonce, "username": name, "password": password(name), "admin": admin, "mac": mac}
    answer = ask(url, "POST", path, body=wanted)
    assert answer.status == 200, answer
    return answer.json()["access_token"]


def furnish(town: Town, version: str, kind: str) -> str:
    creators = ("erin",) if version == "12" else ()
    room = town.make_room(version, kind, creators=creators)
    for name in (*MEMBERS, *FORMER, *creators):
        if name != "trent":
            town.join(room, name)
    town.kick(room, "dave")
    town.leave(room, "leo")
    town.ban(room, "bart")
    town.invite(room, "ivan")
    return room


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    homeserver = Homeserver(folder)
    try:
        secret = registration_secret(folder)
        tokens = {name: register(homeserver.url, secret, name, admin=name == "alice") for name in PEOPLE}
        town = Town(homeserver.url, {"tokens": tokens, "rooms": {}})
        rooms = {f"{kind} {version}": furnish(town, version, kind) for kind in KINDS for version in VERSIONS}
    finally:
        homeserver.stop()
    (folder / "town.json").write_text(json.dumps({"tokens": tokens, "rooms": rooms}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
