"""Arrows point one way: who may import whom, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "openai_compat"
FOUNDATION = {"domain", "errors", "extras", "hooks", "profiles", "streams", "gate", "settings", "tokens", "__version__"}
MAY_USE = {
    "web": {"web", "services", "routing", "backends", "logs"} | FOUNDATION,
    "services": {"services", "routing", "backends"} | FOUNDATION,
    "routing": {"routing", "backends", "stores"} | FOUNDATION,
    "stores": {"stores", "errors"},
    "backends": {"backends", "local"} | FOUNDATION,
    "local": {"local", "backends"} | FOUNDATION,
    "domain": {"streams"},
    "streams": {"errors"},
    "gate": {"errors", "streams"},
    "tokens": {"domain"},
    "profiles": {"errors"},
    "hooks": {"domain", "errors"},
    "settings": {"hooks", "profiles"},
    "errors": set(),
    "extras": set(),
    "logs": {"settings"},
    "mock_upstream": {"mock_upstream"},
    "plain_http": set(),
    "progress": set(),
    "conformance": {"conformance", "plain_http", "progress"},
    "doctor": {"doctor", "plain_http", "progress", "backends"},
    "heads": set(),
    "worker": {"errors", "heads", "master"},
    "master": set(),
    "pipelines": {"pipelines", "app", "web", "services", "backends", "configuration", "logs"} | FOUNDATION,
}
OWNERS = {
    "flask": ("app.py", "web/", "engine/application.py"),
    "flask_cors": ("app.py",),
    "werkzeug": ("app.py", "web/", "engine/application.py"),
    "marshmallow": ("web/",),
    "apispec": ("web/",),
    "requests": ("backends/upstream.py", "backends/transport", "backends/dialing.py"),
    "httptools": ("backends/transport", "backends/connections.py", "mock_upstream/"),
    "gevent": ("backends/connections.py", "backends/waiting.py", "worker.py", "web/disconnect.py", "mock_upstream/"),
    "greenlet": ("backends/waiting.py",),
    "gunicorn": ("worker.py", "heads.py", "engine/server.py"),
    "huggingface_hub": ("local/",),
    "jmespath": ("backends/expressions.py",),
    "databricks": ("backends/databricks_token.py",),
    "yaml": ("models_file/",),
    "tiktoken": ("tokens.py",),
    "sqlite3": ("stores/sqlite.py",),
    "redis": ("stores/redis.py",),
    "haystack": ("pipelines/",),
    "httpx": ("pipelines/",),
    "openai": ("pipelines/",),
    "pypdf": ("pipelines/",),
    "torch": ("local/",),
    "transformers": ("local/",),
    "llguidance": ("local/",),
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    """Every module that the file imports at run time, by its full name."""
    tree = ast.parse(path.read_text())
    package = ["openai_compat", *path.relative_to(PACKAGE).parts[:-1]]
    for node in _without_type_checking(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parts = [*base, *(node.module.split(".") if node.module else [])]
            if len(parts) == 1 and node.level:
                yield from (f"openai_compat.{alias.name}" for alias in node.names)
            else:
                yield ".".join(parts)


def _without_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from _without_type_checking(node)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_layer_may_use(path: Path) -> None:
    allowed = MAY_USE.get(room_of(path))
    if allowed is None:
        pytest.skip("wiring may use everything")
    used = {name.split(".")[1] for name in imports_of(path) if name.startswith("openai_compat.")}
    assert used <= allowed, f"{path.name} reaches for {used - allowed}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_library_is_imported_where_it_belongs(path: Path) -> None:
    place = str(path.relative_to(PACKAGE))
    for name in imports_of(path):
        owners = OWNERS.get(name.split(".")[0])
        assert owners is None or place.startswith(owners), f"{place} imports {name}"


def test_only_config_reads_the_environment() -> None:
    for path in MODULES:
        attributes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
        of_os = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "os"}
        assert of_os.isdisjoint({"environ", "getenv"}), path
