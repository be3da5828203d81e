"""Import directions between packages and sub-packages, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tools import ROOT

PACKAGE = ROOT / "openai_compat"

# From the outermost layer to the innermost. A package imports itself and the layers below, never its own layer.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("cli",),
    ("sidecars",),
    ("app",),
    ("web", "server", "tools", "telemetry"),
    ("config",),
    ("services",),
    ("accounts",),
    ("routing",),
    ("backends", "state", "storage"),
    ("core",),
)
# `app` serves the model of `doctor`. `cli` imports the programs in `tools` by name when they are chosen.
TOOLS_USERS = {"app.py"}

# Within `backends`: kinds > base > {http, auth}, and kinds > parsing > http.
HTTP = {"http"}
BASE = {"base", "resources", "http", "auth", "sidecar_client", "runtime_dir"}
KIND = BASE | {"parsing", "parameter_checks", "http_backend"}
BACKENDS: dict[str, set[str]] = {
    "http": HTTP,
    "auth": {"auth"},
    "resources": {"resources", "auth"},
    "base": BASE,
    "http_backend": BASE | {"http_backend"},
    "runtime_dir": {"runtime_dir"},
    "sidecar_client": {"sidecar_client", "runtime_dir"},
    "registry": {"base"},
    "parsing": {"parsing", "http"},
    "parameter_checks": {"parameter_checks"},
    "echo": KIND | {"echo"},
    "external": KIND | {"external"},
    "openai": KIND | {"openai"},
    "anthropic": KIND | {"anthropic"},
    "databricks": KIND | {"databricks", "openai"},
    "local": KIND | {"local", "openai", "registry"},
    "huggingface": KIND | {"huggingface", "local", "openai"},
    "llama_cpp": KIND | {"llama_cpp", "local", "openai"},
    "haystack": KIND | {"haystack"},
}
# Within `core`: values first, then the modules that use them.
CORE: dict[str, set[str]] = {
    "version": set(),
    "cpu_limit": set(),
    "shortening": set(),
    "errors": {"shortening"},
    "extras": set(),
    "former_names": set(),
    "logging": {"shortening"},
    "validators": set(),
    "cancellation": {"errors", "former_names"},
    "redaction": set(),
    "secret_masking": set(),
    "streams": set(),
    "text_buffer": set(),
    "timeouts": set(),
    "types": {"cancellation", "observation", "timeouts", "trace"},
    "trace": set(),
    "observation": set(),
    "anthropic": {"types"},
    "prices": {"types"},
    "timers": set(),
    "turns": set(),
    "context_overflow": set(),
    "large_json": {"turns"},
    "vocabularies": set(),
    "tokens": {"types", "vocabularies"},
    "profiles": {"errors"},
    "concurrency": {"errors", "cancellation"},
    "byte_budget": {"errors"},
    "hooks": {"types", "errors"},
    "settings": {"hooks", "prices", "profiles", "redaction", "timeouts"},
}
OWNERS = {
    "flask": (
        "app.py",
        "web/",
        "sidecars/huggingface/application.py",
        "sidecars/haystack/application.py",
        "sidecars/llama_cpp/leases.py",
    ),
    "flask_cors": ("app.py",),
    "werkzeug": ("app.py", "web/", "sidecars/huggingface/application.py", "sidecars/haystack/application.py"),
    "marshmallow": ("web/", "config/"),
    "apispec": ("web/openapi/",),
    "requests": ("backends/http/",),
    "httptools": ("backends/http/", "tools/mock_upstream/"),
    "gevent": ("backends/http/", "server/", "web/client_monitor.py", "tools/mock_upstream/", "storage/"),
    "greenlet": ("backends/http/gevent_reader.py",),
    "gunicorn": ("server/", "sidecars/server.py"),
    "huggingface_hub": ("sidecars/huggingface/",),
    "jmespath": ("backends/external/expressions.py",),
    "databricks": ("backends/databricks/token_fetcher.py",),
    "yaml": ("config/",),
    "tiktoken": ("core/vocabularies.py",),
    "cryptography": ("services/responses/sealing.py",),
    "itsdangerous": ("web/admin_sessions.py",),
    "jwt": ("accounts/identity_tokens.py",),
    "sqlite3": ("state/sqlite.py", "state/sqlite_file.py", "state/sqlite_ledger.py", "storage/"),
    "sqlalchemy": ("storage/",),
    "alembic": ("storage/migrate.py", "storage/migrations/"),
    "redis": ("state/redis_client.py",),
    "opentelemetry": ("telemetry/export.py",),
    "haystack": ("sidecars/haystack/",),
    "httpx": ("sidecars/haystack/",),
    "openai": ("sidecars/haystack/",),
    "pypdf": ("sidecars/haystack/",),
    "torch": ("sidecars/huggingface/",),
    "transformers": ("sidecars/huggingface/",),
    "llguidance": ("sidecars/huggingface/",),
    "xllamacpp": ("sidecars/llama_cpp/parameters.py",),
}
ENVIRONMENT_READERS = {"config/environment.py", "server/gunicorn_conf.py"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def imports_of(path: Path) -> Iterator[str]:
    """Yield the full name of every module that the file imports at run time."""
    package = ["openai_compat", *path.relative_to(PACKAGE).parts[:-1]]
    for node in _without_type_checking(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                is_module = (PACKAGE.parent / module.replace(".", "/") / f"{alias.name}.py").exists()
                is_package = (PACKAGE.parent / module.replace(".", "/") / alias.name / "__init__.py").exists()
                yield f"{module}.{alias.name}" if is_module or is_package else module


def _without_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from _without_type_checking(node)


def own_imports(path: Path) -> Iterator[list[str]]:
    """Yield the parts of each imported module of this package, without `openai_compat` itself."""
    return (parts[1:] for name in imports_of(path) if (parts := name.split("."))[0] == "openai_compat" and parts[1:])


def layer_of(name: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if name in layer)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_the_layers_below_its_own(path: Path) -> None:
    package = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if package in {"__init__", "__main__"}:
        return
    for target, *_rest in own_imports(path):
        is_allowed = target == package or layer_of(target) > layer_of(package)
        assert is_allowed, f"{name_of(path)} imports {target}"
        assert target != "tools" or package == "tools" or name_of(path) in TOOLS_USERS, name_of(path)


@pytest.mark.parametrize(("package", "allowed"), [("backends", BACKENDS), ("core", CORE)], ids=["backends", "core"])
def test_a_module_imports_only_allowed_sub_packages(package: str, allowed: dict[str, set[str]]) -> None:
    for path in (PACKAGE / package).rglob("*.py"):
        inner = path.relative_to(PACKAGE / package).parts[0].removesuffix(".py")
        used = {rest[0] for target, *rest in own_imports(path) if target == package and rest}
        assert inner == "__init__" or used - {inner} <= allowed[inner], f"{name_of(path)} imports {used}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_library_is_imported_only_by_its_owners(path: Path) -> None:
    for name in imports_of(path):
        owners = OWNERS.get(name.split(".")[0])
        assert owners is None or name_of(path).startswith(owners), f"{name_of(path)} imports {name}"


def test_only_the_configuration_reads_the_environment() -> None:
    for path in MODULES:
        attributes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
        of_os = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "os"}
        assert of_os.isdisjoint({"environ", "getenv"}) or name_of(path) in ENVIRONMENT_READERS, path


def test_no_module_is_part_of_an_import_cycle() -> None:
    """Remove the modules without imports until none is left. Imports for type checking do not count."""
    graph = {name: set(own) for name, own in _graph().items()}
    while graph:
        leaves = {name for name, used in graph.items() if not used & graph.keys()}
        assert leaves, f"a cycle among {sorted(graph)}"
        graph = {name: used - leaves for name, used in graph.items() if name not in leaves}


def _graph() -> dict[str, set[str]]:
    names = {name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in MODULES}
    return {
        name: {used for parts in own_imports(path) if (used := ".".join(parts)) in names and used != name}
        for name, path in names.items()
    }


def test_web_never_decides_between_passthrough_and_translation() -> None:
    """`services.inference` does, once for all endpoints."""
    for path in (PACKAGE / "web").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                assert "SupportsForwarding" not in ast.unparse(node), name_of(path)


def test_every_permission_within_core_is_used() -> None:
    """A permission that no import needs would let a new one in unseen."""
    used: dict[str, set[str]] = {name: set() for name in CORE}
    for path in (PACKAGE / "core").glob("*.py"):
        used.setdefault(path.stem, set()).update(rest[0] for target, *rest in own_imports(path) if target == "core")
    del used["__init__"]
    assert used == CORE


def test_config_imports_neither_services_nor_routing() -> None:
    """It stands above them only so that they cannot import it. They get settings as values.

    The accounts file is checked by the rules of policies, which are in `accounts`.
    """
    targets = {target for path in (PACKAGE / "config").rglob("*.py") for target, *_rest in own_imports(path)}
    assert targets == {"config", "accounts", "backends", "core"}
