"""Finds `config.py` and `gunicorn.conf.py` by their place beside the package, whatever else bears these names."""

from __future__ import annotations

import logging
import sys
from functools import lru_cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .settings import Settings

log = logging.getLogger(__name__)

_FOLDER: Final = Path(__file__).resolve().parents[1]
GUNICORN_FILE: Final = _FOLDER / "gunicorn.conf.py"


@lru_cache(maxsize=1)
def config_module() -> ModuleType:
    """Our `config.py`. `import config` would take the one of the folder where the server is started."""
    path = _FOLDER / "config.py"
    spec = spec_from_file_location("openai_compat_config", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_settings(*, with_models: bool = True, **over: str) -> Settings:
    """The settings of this process's environment, as `config.load` reads them, with those of `over` in their place.

    Raises:
        ConfigurationError: with every problem at once.
    """
    config = config_module()
    environ = {**config.read_environment(), **over} if over else None
    settings: Settings = config.load(environ, with_models=with_models)
    return settings


def warn_without_gevent() -> None:
    """Says so where gunicorn runs this server with workers that do not suit it.

    It looks for its file in the folder where it is started, and says nothing when there is none. Asked of what has been
    imported, so that a process without gunicorn or gevent imports neither.
    """
    patches = sys.modules.get("gevent.monkey")
    is_patched = patches is not None and patches.is_module_patched("socket")
    if "gunicorn.arbiter" in sys.modules and not is_patched:
        log.warning(
            "gunicorn runs without gevent workers: they serve few callers at a time, and may cut streams after 30 s. "
            "Start it with -c %s",
            GUNICORN_FILE,
        )
