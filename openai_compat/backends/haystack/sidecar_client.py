"""Client of the Haystack sidecar in each worker."""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from openai_compat.backends.runtime_dir import PREFIX, temporary_parent
from openai_compat.backends.sidecar_client import SidecarClient
from openai_compat.core.settings import Settings

# The sidecar gets this process's `sys.path`, which may differ from what the environment alone would produce.
BOOTSTRAP: Final = (
    "import sys; sys.path[:] = sys.argv[1:-1]; from openai_compat.sidecars.haystack.__main__ import main; main()"
)


class HaystackClient(SidecarClient):
    """Client of the sidecar that runs all pipelines of a server."""

    title = "Haystack sidecar"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        own_path = temporary_parent() / f"{PREFIX}{settings.server_id}"
        super().__init__(Path(settings.local_runtime_dir or own_path), sidecar_identity(settings))

    def command(self) -> Sequence[str]:
        return sys.executable, "-c", BOOTSTRAP, *sys.path

    def configuration(self) -> bytes:
        return pickle.dumps(self._settings)


def sidecar_identity(settings: Settings) -> str:
    """Return the name of a server's sidecar, which a reload changes, because documents are indexed again then."""
    return hashlib.sha256(f"haystack {settings.server_id}".encode()).hexdigest()[:12]
