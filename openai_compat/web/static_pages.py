"""What the pages of static files share, such as their files and their security headers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from flask import Response, send_from_directory

from openai_compat.core.errors import NotFoundError

STATIC: Final = Path(__file__).parent / "static"
SHARED: Final = "shared"
"""Folder with the files of all pages."""
ASSET_TYPES: Final = frozenset({".js", ".css", ".svg"})
SECURITY_HEADERS: Final[Mapping[str, str]] = {
    # Nothing inline, nothing from other hosts, and no script may turn text into HTML.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def find_assets(*folders: str) -> dict[str, Path]:
    """Return the folder of each file that a page may request, by the file's name. The shared files are included."""
    paths = (path for folder in (SHARED, *folders) for path in (STATIC / folder).iterdir())
    return {path.name: path.parent for path in paths if path.suffix in ASSET_TYPES}


def send_asset(assets: Mapping[str, Path], name: str) -> Response:
    """Return a file of a page.

    Raises:
        NotFoundError: the page has no such file.
    """
    folder = assets.get(name)
    if folder is None:
        raise NotFoundError(f"There is no file '{name}'.")
    return send_from_directory(folder, name)


def add_security_headers(response: Response) -> Response:
    """Add the headers of a page's responses."""
    response.headers.update(SECURITY_HEADERS)
    return response
