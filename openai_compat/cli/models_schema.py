"""Command `models schema`, which prints the JSON Schema of the models file."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_schema_command(actions: Any) -> None:
    """Add the command to those of `models`."""
    schema = actions.add_parser(
        "schema",
        help="print the JSON Schema of the models file",
        description="Print the JSON Schema of the models file. Editors with YAML support check a file that begins with "
        "`# yaml-language-server: $schema=models.schema.json`, where models.schema.json contains this output.",
    )
    schema.set_defaults(run=run)


def run(_arguments: argparse.Namespace) -> int:
    """Print the schema."""
    from openai_compat.config.json_schema import models_json_schema

    print(json.dumps(models_json_schema(), indent=2))
    return 0
