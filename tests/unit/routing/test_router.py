"""Route plans that the router builds from the configuration."""

from __future__ import annotations

from typing import Any

from openai_compat.backends.base import Backend, NoOptions
from openai_compat.backends.resources import BackendResources
from openai_compat.core.settings import ModelConfig, RoutePolicy, Settings
from openai_compat.core.timeouts import Timeouts
from openai_compat.routing.route import Target
from openai_compat.routing.router import ModelRouter

RESOURCES: Any = BackendResources(Settings(), None)  # type: ignore[arg-type]  # nothing is forwarded here
PATIENT, ROUTED = Timeouts(), Timeouts(first_byte=90, first_token=60)


def targets_of(policy: RoutePolicy, **entries: ModelConfig) -> dict[str, Target]:
    """Return the targets and fallbacks of the model `m` by name. `other` is a model of the default upstream."""
    configs = {"m": ModelConfig("m", "openai", timeouts=ROUTED, routed_timeouts=ROUTED, routing=policy), **entries}
    backends = {name: Backend(config, NoOptions(), RESOURCES) for name, config in configs.items()}
    upstream = Backend(ModelConfig("*", "openai", routed_timeouts=ROUTED), NoOptions(), RESOURCES)
    plan = ModelRouter(Settings(entries=configs), backends, upstream).route("m").plan
    assert plan is not None
    return {target.model: target for target in plan.order()}


def test_fallbacks_have_the_timeouts_of_the_route() -> None:
    spare = ModelConfig("spare", "openai", routed_timeouts=ROUTED)
    targets = targets_of(RoutePolicy(fallbacks=("spare", "other")), spare=spare)
    assert {name: target.timeouts for name, target in targets.items()} == {"m": None, "spare": ROUTED, "other": ROUTED}
    assert [target.first_token_timeout for target in targets.values()] == [60, 60, 60]


def test_a_target_without_alternatives_keeps_its_timeouts() -> None:
    alias = RoutePolicy(targets={"other": 1.0})
    assert [target.timeouts for target in targets_of(alias).values()] == [None]
    assert [target.timeouts for target in targets_of(RoutePolicy(retries=2)).values()] == [None]


def test_a_model_without_an_upstream_keeps_its_timeouts() -> None:
    targets = targets_of(RoutePolicy(fallbacks=("local",)), local=ModelConfig("local", "echo"))
    assert targets["local"].timeouts is None
    assert targets["local"].first_token_timeout == 0
