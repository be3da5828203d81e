"""Checks of the model aliases, which come from the models file and from the setting `MODEL_ALIASES`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from openai_compat.core.settings import ModelConfig, Settings

SECTION = "model_aliases"


def check_section(section: object) -> Iterator[str]:
    """Yield a sentence for each entry of the section `model_aliases` that does not map a name to a name."""
    if not isinstance(section, dict):
        yield f"{SECTION} must be a mapping of names or patterns to names of models"
        return
    for name, model in section.items():
        if not (isinstance(name, str) and name.strip()):
            yield f"{SECTION}: {name!r} is not the text of a name or a pattern"
        elif not (isinstance(model, str) and model.strip()):
            yield f"{SECTION}: '{name}' must name a model"


def check_aliases(
    aliases: Mapping[str, str], entries: Mapping[str, ModelConfig], settings: Settings, *, has_upstream: bool
) -> Iterator[str]:
    """Yield a sentence for each alias that is never used or that leads to no model.

    An alias names a model and no other alias, so that there are no cycles.
    """
    allowed = settings.model_allow_list
    for name, model in aliases.items():
        if name in entries:
            yield f"{SECTION}: '{name}' is the name of a model already"
        elif model in aliases and model not in entries:
            yield f"{SECTION}: '{name}' names '{model}', which is an alias itself"
        elif model not in entries and not has_upstream:
            yield f"{SECTION}: '{name}' names '{model}', which is not configured"
        elif allowed and model not in allowed:
            yield f"{SECTION}: '{name}' names '{model}', which MODEL_ALLOW_LIST leaves out"
