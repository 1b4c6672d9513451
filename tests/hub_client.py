"""The real client of the Hub in processes of its own, for the tests of `tests/hub`.

It reads its settings (`HF_ENDPOINT`, ...) when it is imported, and a test must not change them for the rest of the
run. So what talks to the Hub is a program, `client.run("...")`, or the command, `client.unibrivl("push", ...)`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

from hub_server import LoopbackHub

WRITER, READER, STRANGER = "hf_writer", "hf_reader", "hf_stranger"  # tokens of ann, bob and eve


def populate(hub: LoopbackHub) -> LoopbackHub:
    """Three users: ann may write to org, bob may read it, and to eve what is private there does not exist."""
    hub.add_account("ann", WRITER, organisations=("org",))
    hub.add_account("bob", READER, may_write=False, organisations=("org",))
    hub.add_account("eve", STRANGER)
    return hub


@dataclasses.dataclass
class Client:
    """Runs programs against a Hub as a user who has a home of their own and a token."""

    hub: LoopbackHub
    home: Path
    token: str | None = WRITER

    def environment(self, **changes: str | None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
        paths = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
        wanted = {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.home),
            "HF_TOKEN": self.token,
            "HF_HUB_DISABLE_XET": "1",  # its storage speaks a protocol of its own
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": paths,
            **changes,
        }
        return kept | {name: value for name, value in wanted.items() if value is not None}

    def start(self, *command: str, **changes: str | None) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *command],
            env=self.environment(**changes),
            capture_output=True,
            text=True,
            timeout=300,
            cwd=self.home.parent,
        )

    def run(self, program: str, *arguments, **changes: str | None):
        """Runs a program that has succeeded when it ends; what it hands to `give(...)` comes back."""
        head = "import json, sys\ndef give(value): print('GIVEN', json.dumps(value))\n"
        done = self.start("-c", head + program, *map(str, arguments), **changes)
        assert done.returncode == 0, done.stderr
        given = [line.removeprefix("GIVEN ") for line in done.stdout.splitlines() if line.startswith("GIVEN ")]
        return json.loads(given[-1]) if given else None

    def unibrivl(self, *arguments, **changes: str | None) -> subprocess.CompletedProcess:
        return self.start("-m", "unibrivl", *map(str, arguments), **changes)
