"""Test settings: one Hypothesis profile, quick and repeatable."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("default")
