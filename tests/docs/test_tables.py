"""The tables of the documentation and `.env.example`, compared with the code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openai_compat.backends import base
from openai_compat.backends.base import option_names
from openai_compat.backends.local.engine_config import LOCAL_KINDS
from openai_compat.backends.registry import KINDS, load_backend_class
from openai_compat.config import settings_table
from openai_compat.config.model_schema import COMMON_KEYS
from openai_compat.config.settings_table import Setting
from openai_compat.core import errors
from openai_compat.core.validators import parse_text
from openai_compat.services.forwarding import FILE_HEADERS, RELAYED_HEADERS, RELAYED_PREFIXES
from openai_compat.tools.mock_upstream.options import NAMES
from openai_compat.web import forwarded_headers as headers
from openai_compat.web.routes import inference as inference_routes
from openai_compat.web.routes import messages as messages_routes
from openai_compat.web.routes import models as models_routes
from openai_compat.web.routes import passthrough
from openai_compat.web.routes import responses as responses_routes
from scripts import render_docs
from tests.support.tools import ROOT

SETTINGS_PAGE = "docs/reference/configuration.md"
FILE = re.compile(r"`([\w./-]+(?:\.py|\.conf|\.yaml|\.toml|/))`")
CODE = re.compile(r"`([^`]+)`")


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def rows(text: str, first_heading: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the table whose first column has this heading."""
    lines = iter(text.splitlines())
    assert any(line.startswith(f"| {first_heading} |") for line in lines), f"there is no table '{first_heading}'"
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("name", render_docs.FILES)
def test_the_rendered_tables_are_up_to_date(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert render_docs.render(name, text) == text, "`make docs` renders it"


@pytest.mark.parametrize("name", render_docs.DOCUMENTS)
def test_every_rendered_document_has_a_table(name: str) -> None:
    assert "<!-- table: " in (ROOT / name).read_text(encoding="utf-8")


def test_a_new_setting_changes_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new setting is rendered in the tables and in `.env.example`."""
    another = Setting(("HOST",), parse_text, "Another meaning.")
    monkeypatch.setattr(render_docs, "SETTINGS", [*settings_table.SETTINGS, another])
    table, example = ((ROOT / name).read_text(encoding="utf-8") for name in (SETTINGS_PAGE, ".env.example"))
    assert "Another meaning." in render_docs.render(SETTINGS_PAGE, table)
    assert "# Another meaning.\n# HOST=0.0.0.0\n" in render_docs.render(".env.example", example)
    monkeypatch.setattr(render_docs, "SETTINGS", settings_table.SETTINGS[1:])
    assert "# HOST=" not in render_docs.render(".env.example", example)


def test_check_reports_an_outdated_table_and_changes_nothing(tmp_path: Path) -> None:
    for name in render_docs.FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("scripts", "openai_compat", "bench", "config.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = [sys.executable, "-c", _RENDER_HERE, str(tmp_path)]
    assert subprocess.run([*command, "--check"], cwd=tmp_path, capture_output=True).returncode == 0
    old = (tmp_path / SETTINGS_PAGE).read_text().replace("| `8000` |", "| `80` |")
    (tmp_path / SETTINGS_PAGE).write_text(old)
    check = subprocess.run([*command, "--check"], cwd=tmp_path, capture_output=True, text=True)
    assert (check.returncode, check.stdout) == (1, f"{SETTINGS_PAGE} is out of date: make docs\n")
    assert (tmp_path / SETTINGS_PAGE).read_text() == old
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
    assert (tmp_path / SETTINGS_PAGE).read_text() == (ROOT / SETTINGS_PAGE).read_text()


_RENDER_HERE = """
import pathlib, sys
from scripts import render_docs
render_docs.ROOT = pathlib.Path(sys.argv.pop(1))
sys.exit(render_docs.main())
"""


def test_every_key_of_the_models_file_is_documented() -> None:
    explained = {CODE.findall(row[0])[0]: row[1] for row in rows(page("reference/configuration"), "key")}
    options = {option: kind for kind in KINDS for option in option_names(load_backend_class(kind))}
    assert explained.keys() == COMMON_KEYS | options.keys()
    for option, kind in options.items():
        assert f"`{kind}`" in explained[option]


def test_every_error_is_documented() -> None:
    """The documentation has the status of each error, or its setting, the type, and whether a retry is useful."""
    explained = {
        code: (status.strip("`"), CODE.findall(kind)[0], "x-should-retry: false" in meaning)
        for codes, status, kind, meaning in rows(page("reference/http-api"), "code")
        for code in CODE.findall(codes)
    }
    coded = [error for error in _errors(errors.OpenAICompatError) if error.code is not None]
    for error in coded:
        is_final = error.is_retryable is False
        assert explained[str(error.code)] == (_status_of(error), error.type, is_final), error.__name__
    raised_with_another_code = {
        "missing_required_parameter", "invalid_type", "chat_completions_not_available", "completions_not_available",
        "embeddings_backend_unavailable", "endpoint_not_available", "external_api_error", "model_loading",
        "engine_stopped", "hook_not_available", "list_not_available", "overloaded",
    }  # fmt: skip
    assert explained.keys() - {error.code for error in coded} == raised_with_another_code


def _errors(root: type[errors.OpenAICompatError]) -> Iterator[type[errors.OpenAICompatError]]:
    for error in root.__subclasses__():
        yield error
        yield from _errors(error)


def _status_of(error: type[errors.OpenAICompatError]) -> str:
    is_validation_error = issubclass(error, errors.InvalidRequestError)
    return str(error.status or ("VALIDATION_ERROR_STATUS" if is_validation_error else "UPSTREAM_ERROR_STATUS"))


def test_every_forwarded_header_is_documented() -> None:
    """The documentation names all of them, and no other."""
    _, to_upstream, to_client, *_ = re.split(r"From an? (?:client|upstream) to ", page("reference/http-api"))
    names = tuple(headers._FORWARDED_WITH_GET)
    forwarded = {name for _, name in headers._forwarded_names(names, headers._FORWARDED_WITH_GET)}
    forwarded |= {f"{name}*" for _, name in headers._forwarded_names(headers._FORWARDED_PREFIXES, frozenset())}
    relayed = RELAYED_HEADERS | FILE_HEADERS | {f"{prefix}*" for prefix in RELAYED_PREFIXES}
    assert set(CODE.findall(to_upstream)) == forwarded
    assert set(CODE.findall(to_client.partition("\n## ")[0])) == relayed


def test_every_url_prefix_of_an_endpoint_is_documented() -> None:
    documented = {
        endpoint: set(CODE.findall(prefixes)) | ({""} if "none" in prefixes else set())
        for endpoint, prefixes in rows(page("reference/http-api"), "endpoint")
    }
    (inference, inference_prefixes), (responses, responses_prefixes), (models, models_prefixes), *_ = documented.items()
    assert "chat/completions" in inference
    assert "responses" in responses
    assert "models" in models
    assert inference_prefixes == {
        prefix.replace("<path:deployment>", "{model}") for prefix in inference_routes.URL_PREFIXES
    }
    assert responses_prefixes == {
        prefix.replace("<path:deployment>", "{model}") for prefix in responses_routes.URL_PREFIXES
    }
    assert models_prefixes == set(models_routes.URL_PREFIXES)
    (messages_prefixes,) = (prefixes for endpoint, prefixes in documented.items() if "count_tokens" in endpoint)
    assert messages_prefixes == set(messages_routes.URL_PREFIXES)
    (passthrough_prefixes,) = (prefixes for endpoint, prefixes in documented.items() if "passthrough" in endpoint)
    assert passthrough_prefixes == {*passthrough.URL_PREFIXES, ""}


def test_the_endpoints_of_each_kind_are_documented() -> None:
    documented = {kind.strip("`"): [cell.partition(",")[0] == "yes" for cell in cells] for kind, *cells in _kinds()}
    capabilities = (base.SupportsChat, base.SupportsCompletions, base.SupportsEmbeddings, base.SupportsForwarding)
    for kind in KINDS:
        served = [issubclass(load_backend_class(kind), capability) for capability in capabilities]
        forwards_other_endpoints = kind not in LOCAL_KINDS  # their engines have no others
        assert documented.pop(kind) == ([True, True, True, forwards_other_endpoints] if served[-1] else served)
    assert not documented


def _kinds() -> Iterator[list[str]]:
    return rows(page("reference/backends"), "kind")


@pytest.mark.parametrize(
    "name",
    [
        "internals/architecture",
        "guides/writing-a-backend",
        "reference/configuration",
        "guides/deployment",
        "internals/dependencies",
    ],
)
def test_every_named_file_exists(name: str) -> None:
    others = {"shouting.py", "sites-enabled/"}  # files of readers and of nginx
    for file in set(FILE.findall(page(name))) - others:
        places = [ROOT / file, ROOT / "openai_compat" / file, *(ROOT / "openai_compat").rglob(file.lstrip("/"))]
        assert any(place.exists() for place in places), f"docs/{name}.md names {file}"


def test_every_option_of_the_mock_upstream_is_documented() -> None:
    explained = [name for row in rows(page("guides/fault-injection"), "option") for name in CODE.findall(row[0])]
    assert sorted(explained) == sorted(NAMES)
