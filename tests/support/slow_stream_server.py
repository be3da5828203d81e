"""Backend that slowly streams a constant Markdown text, for tests of pages."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai_compat.backends.base import Backend, SupportsChat
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest

STORY = """\
Files with the same content have the same hash, so one pass is enough: group them by it, and keep the groups of
two or more.

```python
from collections import defaultdict
from hashlib import file_digest
from pathlib import Path

def find_duplicates(folder: Path) -> list[list[Path]]:
    \"\"\"Groups of files below `folder` whose content is the same.\"\"\"
    groups = defaultdict(list)
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                groups[file_digest(file, "sha256").digest()].append(path)
    return [group for group in groups.values() if len(group) > 1]
```

Which hash? Any that is wide enough:

| hash | bits | speed | good for |
| --- | --- | --- | --- |
| `sha256` | 256 | fast, in hardware | anything |
| `blake2b` | 512 | faster | very large folders |
| `crc32` | 32 | fastest | nothing here: it collides |

- **Empty files** are all duplicates of each other: leave them out if that surprises.
- Compare *sizes* first where the disk is slow; most files never need to be read.
"""


@dataclass(frozen=True, slots=True)
class StoryOptions:
    """Options of the model.

    `delay` is the pause between two deltas in seconds, `times` the number of repetitions of the text. With `until`, the
    text is repeated until a file exists at this path, so that the test decides when the stream ends.
    """

    delay: float = 0.0
    times: int = 1
    until: str | None = None


class SlowStreamBackend(Backend, SupportsChat):
    """Backend for a `kind` of `tests.support.slow_stream_server:SlowStreamBackend`."""

    Options = StoryOptions

    def describe(self) -> Mapping[str, Any]:
        return {"state": "ready"}

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        return self._stream()

    def _stream(self) -> Iterator[ChatDelta]:
        repetitions = 0
        while repetitions < self.options.times or self._must_repeat():
            for text in re.findall(r"\S+\s*", STORY + "\n"):
                yield ChatDelta(text)
                time.sleep(self.options.delay)
            repetitions += 1
        yield ChatDelta(finish_reason="stop")

    def _must_repeat(self) -> bool:
        return self.options.until is not None and not Path(self.options.until).exists()
