"""What this server and its peers answer to the questions of `conformance`: `python -m bench.scorecards`.

Each stands in front of the same upstream: this server's echo model, which gets every answer right when it is asked
directly. So what a system gets wrong is what it has lost or added on the way. The cards are written to
`bench/results/scorecards.json`, and shown side by side.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.paths import RESULTS as FOLDER
from bench.paths import ROOT
from bench.processes import Running, free_port
from bench.systems import SYSTEMS, Site, Start, StartError, System, our_version
from bench.workloads import KEY, MODEL

from . import competitors as peers

NAMES: Final = ("ours", "litellm", "portkey")
RESULTS: Final = FOLDER / "scorecards.json"
READY_SECONDS: Final = 120
ORIGIN: Final = "http://localhost:3000"
TEXT_MODEL: Final = f"{MODEL}-text"
# LiteLLM has another provider for text completions; asked for them with the one for chats, it would do worse.
LITELLM_TEXT: Final = """
  - model_name: {text}
    litellm_params:
      model: text-completion-openai/{model}
      api_base: {upstream}
      api_key: sk-any
general_settings:
"""

Card = dict[str, Any]


@contextmanager
def running(start: Start, folder: Path, url: str) -> Iterator[None]:
    """The program, from its first answer of any kind to its end."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8", **start.environ}
    process = Running(start.command, folder, environ, "server.log")
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(url):
            if time.monotonic() > deadline or process.process.poll() is not None:
                raise StartError(process.end_of_log())
            time.sleep(0.2)
        yield
    finally:
        process.stop()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def start_upstream(folder: Path, port: int) -> Start:
    """The echo model, with a moment between its words, so that a stream that is held back can be told."""
    models = folder / "models.json"
    models.write_text(json.dumps([{"name": MODEL, "kind": "echo", "delay": 0.08}]))
    environ = {"PYTHONPATH": str(ROOT), "HOST": "127.0.0.1", "PORT": str(port), "MODELS_FILE": str(models)}
    return Start([sys.executable, "-m", "openai_compat", "serve"], environ)


def ask(url: str, headers: Mapping[str, str], *options: str) -> Card:
    """The scorecard of whoever answers there."""
    command = [sys.executable, "-m", "openai_compat", "conformance", url, "--json", "--api-key", KEY, *options]
    for name, value in headers.items():
        command += ["--header", f"{name}:{value}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:
        raise StartError(done.stderr)
    card: Card = json.loads(done.stdout)
    return card


def examine(system: System, folder: Path, upstream_port: int) -> Card:
    """The card of one system in front of the upstream.

    Raises:
        peers.Absent, StartError
    """
    version = system.prepare()
    folder.mkdir()
    site = Site(folder, free_port(), upstream_port)
    start = system.start(site)
    text_model = MODEL
    if system.name == "litellm":
        path, text_model = folder / "config.yaml", TEXT_MODEL
        row = LITELLM_TEXT.format(text=TEXT_MODEL, model=MODEL, upstream=site.upstream)
        path.write_text(path.read_text().replace("\ngeneral_settings:\n", row))
    url = f"http://127.0.0.1:{site.port}/v1"
    with running(start, folder, f"{url}/models"):
        options = ["--model", MODEL, "--completion-model", text_model, "--origin", ORIGIN]
        return {"system": system.title, "version": version, **ask(url, system.headers(site), *options)}


def to_table(cards: list[Card]) -> str:
    """One row a system; then, for each, what it got wrong."""
    lines = ["| system | version | right | wrong | not asked |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {card['system']} | {card['version']} | {card['right']} | {card['wrong']} | {card['not_asked']} |"
        for card in cards
    ]
    for card in cards:
        wrong = [question for question in card["questions"] if question["outcome"] == "wrong"]
        lines += ["", f"{card['system']}:"] if wrong else []
        lines += [f"- {question['section']}: {question['title']} (came: {question['detail']})" for question in wrong]
    return "\n".join(lines)


def main() -> int:
    cards = []
    with tempfile.TemporaryDirectory(prefix="scorecards-", ignore_cleanup_errors=True) as name:
        port = free_port()
        folder = Path(name, "upstream")
        folder.mkdir()
        url = f"http://127.0.0.1:{port}/v1"
        with running(start_upstream(folder, port), folder, f"{url}/models"):
            direct = ask(url, {}, "--model", MODEL, "--origin", ORIGIN)
            cards.append({"system": "the upstream itself", "version": our_version(), **direct})
            for system in NAMES:
                try:
                    cards.append(examine(SYSTEMS[system], Path(name, system), port))
                except (peers.Absent, StartError) as error:
                    print(f"{system} is left out: {error}", file=sys.stderr)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(cards, indent=1) + "\n")
    print(to_table(cards))
    return 0


if __name__ == "__main__":
    sys.exit(main())
