"""One `rolegate demo` for all stories, and the two clients pointed at it."""

from collections.abc import Iterator

import pytest
import requests
from demo import Demo
from docusign_rooms import ApiClient, RoomsApi
from record import AuditFile
from rocketchat_API.rocketchat import RocketChat
from world import Person

ANSWERS_WITHIN = 20


class Chat:
    """Makes Rocket.Chat clients that reach the server through rolegate."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.issued: list[str] = []

    def log_in(self, person: Person) -> RocketChat:
        client = self._client(user=person.name, password=person.password)
        self.issued.append(client.headers["X-Auth-Token"])
        return client

    def as_person(self, person: Person) -> RocketChat:
        return self.with_token(person.id, person.token)

    def with_token(self, user_id: str, token: str) -> RocketChat:
        return self._client(user_id=user_id, auth_token=token)

    def as_nobody(self) -> RocketChat:
        return self._client()

    def log_in_with(self, name: str, password: str) -> RocketChat:
        return self._client(user=name, password=password)

    def _client(self, **credential: str) -> RocketChat:
        session = requests.Session()
        # A proxy of the machine must not come between the client and rolegate.
        session.trust_env = False
        return RocketChat(server_url=self._url, session=session, timeout=ANSWERS_WITHIN, **credential)


class Rooms:
    """Makes DocuSign Rooms clients that reach the server through rolegate."""

    def __init__(self, url: str) -> None:
        self._url = url

    def as_person(self, person: Person, prefix: str = "/restapi") -> RoomsApi:
        return self.with_token(person.bearer, prefix)

    def with_token(self, token: str, prefix: str = "/restapi") -> RoomsApi:
        client = ApiClient(host=self._url + prefix)
        client.set_default_header("Authorization", f"Bearer {token}")
        return RoomsApi(client)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    running = Demo(tmp_path_factory.mktemp("demo"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def audit(demo: Demo) -> AuditFile:
    return AuditFile(demo.audit)


@pytest.fixture(scope="session")
def chat(demo: Demo) -> Chat:
    return Chat(demo.rocketchat.gate)


@pytest.fixture(scope="session")
def rooms(demo: Demo) -> Rooms:
    return Rooms(demo.docusign.gate)
