"""One Synapse for all stories, a copy of the seeded one, and one rolegate before it that was started with flags only."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gate import Gate
from homeserver import Homeserver
from nio import AsyncClient, AsyncClientConfig
from record import wait_until
from town import Person, Town, read_seed


class Talk:
    """Makes matrix-nio clients, each for one conversation through the gate."""

    def __init__(self, url: str) -> None:
        self._url = url

    def of(self, person: Person, says: Callable[[AsyncClient], Awaitable], *, token: str | None = None):
        async def conversation():
            # A client that hears 429 or 5xx would ask again by itself; a story wants the first answer.
            config = AsyncClientConfig(max_limit_exceeded=0, max_timeouts=0)
            client = AsyncClient(self._url, person.id, config=config)
            client.access_token = person.token if token is None else token
            client.user_id = person.id
            try:
                return await says(client)
            finally:
                await client.close()

        return asyncio.run(asyncio.wait_for(conversation(), timeout=60))


@pytest.fixture(scope="session")
def homeserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homeserver]:
    seeded = os.environ.get("ROLEGATE_TOWN")
    assert seeded, "ROLEGATE_TOWN must name a seeded Synapse: start the stories with tests/clients/run matrix"
    folder = tmp_path_factory.mktemp("homeserver") / "copy"
    shutil.copytree(seeded, folder, ignore=shutil.ignore_patterns("*.log", "*.pid", "output.txt"))
    running = Homeserver(folder)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def town(homeserver: Homeserver) -> Town:
    return Town(homeserver.url, read_seed(Path(os.environ["ROLEGATE_TOWN"])))


@pytest.fixture(scope="session")
def gate(homeserver: Homeserver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    running = Gate(tmp_path_factory.mktemp("gate"), "--provider", "matrix", "--upstream", homeserver.url)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def talk(gate: Gate) -> Talk:
    return Talk(gate.url)


@pytest.fixture(scope="session")
def talk_past_the_gate(homeserver: Homeserver) -> Talk:
    return Talk(homeserver.url)


@pytest.fixture
def guarded(gate: Gate):
    """Demands one decision record, or several alike, from the guarded calls made inside."""

    def demand(action, decision, reason=None, **more):
        return gate.audit.one("matrix", action, decision, reason=reason, **more)

    return demand


@pytest.fixture
def unmatched(gate: Gate):
    """Demands the record of a call that was refused before it was any action's."""

    @contextmanager
    def demand(reason):
        before = len(gate.audit.decisions())
        yield
        wait_until(lambda: len(gate.audit.decisions()) > before)
        (record,) = gate.audit.decisions()[before:]
        assert (record["action"], record["decision"], record["reason"]) == (None, "deny", reason)

    return demand
