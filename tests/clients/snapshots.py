"""What a client saw of the shared stories, compared with the file that holds it.

`ROLEGATE_SNAPSHOTS=renew` writes the files anew.
"""

import difflib
import json
import os
from pathlib import Path

FOLDER = Path(__file__).parent / "snapshots"


class Snapshots:
    """The file of one client; `seen` fills as the stories run."""

    def __init__(self, client: str) -> None:
        self.path = FOLDER / f"{client}.json"
        self.renew = os.environ.get("ROLEGATE_SNAPSHOTS") == "renew"
        self.seen: dict[str, dict] = {}
        self._kept = {} if self.renew else json.loads(self.path.read_text())

    def compare(self, story: str, seen: dict) -> None:
        self.seen[story] = seen
        if not self.renew:
            differences = difflib.unified_diff(lines(self._kept.get(story)), lines(seen), "kept", "seen", n=2, lineterm="")
            assert rendered(seen) == rendered(self._kept.get(story)), "\n".join([f"not as {self.path.name} has it:", *differences])

    def close(self, stories: list[str]) -> None:
        """Compares the file as a whole, so that nothing stands in it that no story sees."""
        assert list(self.seen) == stories, "the whole list of stories must run to compare the file, and to renew it"
        if self.renew:
            self.path.parent.mkdir(exist_ok=True)
            self.path.write_text(rendered(self.seen))
        assert self.path.read_text() == rendered(self.seen)


def lines(seen: object) -> list[str]:
    return rendered(seen).splitlines()


def rendered(seen: object) -> str:
    return json.dumps(seen, indent=2, ensure_ascii=False) + "\n"
