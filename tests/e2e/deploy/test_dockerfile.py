"""The Dockerfile, whose steps run in a folder. The image must contain all that the server needs and nothing else."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.deploy.dockerfile import Image, Step, parse
from tests.support.nginx import free_port
from tests.support.tools import ROOT
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    return parse((ROOT / "Dockerfile").read_text())


@pytest.fixture(scope="module")
def image(steps: list[Step]) -> Iterator[Image]:
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        image = Image(ROOT, Path(folder))
        image.build(steps)
        yield image


def last(steps: list[Step], instruction: str) -> Step:
    return [step for step in steps if step.instruction == instruction][-1]


def test_dependencies_are_installed_before_the_code_is_copied(steps: list[Step]) -> None:
    """Otherwise a change of the code would install them again."""
    first_stage = steps[: [step.instruction for step in steps].index("FROM", 2)]  # after ARG and FROM
    copied = [word for step in first_stage if step.instruction == "COPY" for word in step.words[:-1]]
    assert copied == ["requirements.txt"]


def test_the_image_has_no_root_and_stops_on_sigterm(steps: list[Step]) -> None:
    user = last(steps, "USER").text
    assert user.isdigit()
    assert int(user) > 0
    assert last(steps, "STOPSIGNAL").text == "SIGTERM"
    assert steps[-1] == Step("CMD", {}, '["gunicorn", "wsgi:app"]')  # no shell between Docker's signal and gunicorn


def test_the_image_sets_no_setting(steps: list[Step]) -> None:
    names = {word.split("=")[0] for step in steps if step.instruction == "ENV" for word in step.words}
    assert names <= {"PATH", "PYTHONUNBUFFERED", "PIP_NO_CACHE_DIR", "PIP_DISABLE_PIP_VERSION_CHECK"}
    assert not [step for step in steps if step.instruction == "ADD"]
    assert [step.text.split("=")[0] for step in steps if step.instruction == "ARG"] == ["BASE_IMAGE"]


def test_dockerignore_allows_exactly_the_copied_files(steps: list[Step]) -> None:
    ignored, *rules = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    copied = {word for s in steps if s.instruction == "COPY" and "from" not in s.options for word in s.words[:-1]}
    assert ignored == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied
    assert "**/.env*" in rules


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_image_answers_passes_its_health_check_and_stops(image: Image, steps: list[Step]) -> None:
    port = free_port()
    (health,) = parse(last(steps, "HEALTHCHECK").text)
    check = health.words
    assert image.start(check, PORT=str(port)).wait(timeout=30) != 0  # nothing runs yet
    server = image.start(last(steps, "CMD").words, PORT=str(port))
    try:
        _wait_until_healthy(port, server)
        assert image.start(check, PORT=str(port)).wait(timeout=30) == 0
        dead_proxy = f"http://127.0.0.1:{free_port()}"
        assert image.start(check, DATABRICKS_APP_PORT=str(port), http_proxy=dead_proxy).wait(timeout=30) == 0
        assert _ask(port)["object"] == "chat.completion"
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_image_contains_only_the_server_and_a_folder_for_what_it_stores(image: Image) -> None:
    found = {path.name for path in image.inside("/app").iterdir()} - {"__pycache__"}
    assert found == {"config.py", "wsgi.py", "gunicorn.conf.py", "openai_compat", "data"}
    assert list(image.inside("/app/data").iterdir()) == []
    assert not shutil.which("pytest", path=str(image.inside("/venv/bin")))


def _wait_until_healthy(port: int, server: subprocess.Popen[bytes]) -> None:
    def is_healthy() -> bool:
        assert server.poll() is None, "the server exited"
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as reply:
            assert reply.status == 200
            return True
        return False

    wait_until(is_healthy, "the server is healthy")


def _ask(port: int) -> dict[str, object]:
    body = {"model": "mock-gpt-model", "messages": [{"role": "user", "content": "hello"}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        answer: dict[str, object] = json.load(reply)
        return answer
