"""The choice of traces that are exported."""

from __future__ import annotations

import pytest

from openai_compat.core.trace import new_trace_id
from openai_compat.telemetry.sampling import Sampler


@pytest.mark.parametrize(
    ("name", "own", "sampled_parent", "other_parent"),
    [
        ("always_on", True, True, True),
        ("always_off", False, False, False),
        ("parentbased_always_on", True, True, False),
        ("parentbased_always_off", False, True, False),
    ],
)
def test_samplers_of_opentelemetry(name: str, own: bool, sampled_parent: bool, other_parent: bool) -> None:
    sampler = Sampler.named(name, 0.5)
    assert sampler.is_sampled(7, None) is own
    assert sampler.is_sampled(7, True) is sampled_parent
    assert sampler.is_sampled(7, False) is other_parent


def test_a_share_is_chosen_by_the_id_alone() -> None:
    sampler, other = Sampler.named("traceidratio", 0.1), Sampler.named("parentbased_traceidratio", 0.1)
    ids = [new_trace_id() for _ in range(20_000)]
    sampled = [id for id in ids if sampler.is_sampled(id, None)]
    assert 1_700 < len(sampled) < 2_300
    assert sampled == [id for id in ids if other.is_sampled(id, None)]
    assert not Sampler.named("traceidratio", 0.0).is_sampled(1, None)
    assert Sampler.named("traceidratio", 1.0).is_sampled(2**128 - 1, None)
