"""Conformance scores of this server, LiteLLM and Portkey, `python -m bench.compare.scorecards`.

Every system forwards to the same upstream, this server's echo model, which passes all checks when it is called
directly. What a system fails is therefore what it has lost or added. The scorecards are written to
`bench/results/scorecards.json` and printed side by side.
"""

from __future__ import annotations

import json
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

from bench.paths import RESULTS, ROOT
from bench.processes import ProcessTree, free_port
from bench.systems import Command, Site, StartError, System, our_version
from bench.workloads import KEY, MODEL

from .competitors import SYSTEMS, NotInstalled

NAMES: Final = ("ours", "litellm", "portkey")
START_TIMEOUT: Final = 120
POLL_INTERVAL: Final = 0.2
ORIGIN: Final = "http://localhost:3000"
TEXT_MODEL: Final = f"{MODEL}-text"
# LiteLLM has a separate provider for text completions. With the one for chats it would fail more checks.
LITELLM_TEXT: Final = """
  - model_name: {text}
    litellm_params:
      model: text-completion-openai/{model}
      api_base: {upstream}
      api_key: sk-any
general_settings:
"""

Scorecard = dict[str, Any]


@contextmanager
def running(command: Command, folder: Path, url: str) -> Iterator[None]:
    """Run a server for the `with` block, which begins once `url` answers with any status.

    Raises:
        StartError: the server exited, or did not answer within `START_TIMEOUT` seconds.
    """
    processes = ProcessTree(command.arguments, folder, command.to_environ(folder), "server.log")
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not _answers(url):
            if time.monotonic() > deadline or processes.process.poll() is not None:
                raise StartError(processes.last_log_lines())
            time.sleep(POLL_INTERVAL)
        yield
    finally:
        processes.stop()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def upstream_command(folder: Path, port: int) -> Command:
    """Return this server with the echo model, which pauses 80 ms between words so that buffering can be detected."""
    models = folder / "models.json"
    models.write_text(json.dumps([{"name": MODEL, "kind": "echo", "delay": 0.08}]))
    environ = {"PYTHONPATH": str(ROOT), "HOST": "127.0.0.1", "PORT": str(port), "MODELS_FILE": str(models)}
    return Command([sys.executable, "-m", "openai_compat", "serve"], environ)


def run_checks(url: str, headers: Mapping[str, str], *options: str) -> Scorecard:
    """Run the conformance checks against `url` and return the scorecard.

    Raises:
        StartError: the server could not be reached.
    """
    arguments = [sys.executable, "-m", "openai_compat", "conformance", url, "--json", "--api-key", KEY, *options]
    for name, value in headers.items():
        arguments += ["--header", f"{name}:{value}"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:
        raise StartError(done.stderr)
    scorecard: Scorecard = json.loads(done.stdout)
    return scorecard


def check_system(system: System, folder: Path, upstream_port: int) -> Scorecard:
    """Return the scorecard of one system in front of the upstream.

    Raises:
        NotInstalled, StartError
    """
    version = system.prepare()
    folder.mkdir()
    site = Site(folder, free_port(), upstream_port)
    command = system.command(site)
    text_model = MODEL
    if system.name == "litellm":
        path, text_model = folder / "config.yaml", TEXT_MODEL
        entry = LITELLM_TEXT.format(text=TEXT_MODEL, model=MODEL, upstream=site.upstream)
        path.write_text(path.read_text().replace("\ngeneral_settings:\n", entry))
    url = f"http://127.0.0.1:{site.port}/v1"
    with running(command, folder, f"{url}/models"):
        options = ["--model", MODEL, "--completion-model", text_model, "--origin", ORIGIN]
        return {"system": system.title, "version": version, **run_checks(url, system.headers(site), *options)}


def to_table(scorecards: list[Scorecard]) -> str:
    """Return a Markdown table of the scores, followed by the failed checks of each system."""
    lines = ["| system | version | passed | failed | skipped |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {card['system']} | {card['version']} | {card['passed']} | {card['failed']} | {card['skipped']} |"
        for card in scorecards
    ]
    for card in scorecards:
        failed = [check for check in card["checks"] if check["outcome"] == "failed"]
        lines += ["", f"{card['system']}:"] if failed else []
        lines += [f"- {check['section']}: {check['title']} ({check['detail']})" for check in failed]
    return "\n".join(lines)


def main() -> int:
    """Check the upstream and every installed system, write the scorecards and print their table."""
    scorecards = []
    with tempfile.TemporaryDirectory(prefix="scorecards-", ignore_cleanup_errors=True) as name:
        port = free_port()
        folder = Path(name, "upstream")
        folder.mkdir()
        url = f"http://127.0.0.1:{port}/v1"
        with running(upstream_command(folder, port), folder, f"{url}/models"):
            direct = run_checks(url, {}, "--model", MODEL, "--origin", ORIGIN)
            scorecards.append({"system": "the upstream itself", "version": our_version(), **direct})
            for system in NAMES:
                try:
                    scorecards.append(check_system(SYSTEMS[system], Path(name, system), port))
                except (NotInstalled, StartError) as error:
                    print(f"{system} is omitted: {error}", file=sys.stderr)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scorecards.json").write_text(json.dumps(scorecards, indent=1) + "\n")
    print(to_table(scorecards))
    return 0


if __name__ == "__main__":
    sys.exit(main())
