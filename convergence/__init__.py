"""Is this training done? Stopping rules over metric streams, live and on recorded runs."""

from convergence import presets
from convergence.decision import Decision, Reason
from convergence.judge import State, Verdict, judge
from convergence.observation import Observation
from convergence.parse import parse_rule
from convergence.replay import Replay, ReplayTable, replay, replay_many
from convergence.rule import MetricRule, Rule
from convergence.rules import (
    Auto,
    Budget,
    Divergence,
    GeneralizationLoss,
    Lookahead,
    NonFinite,
    Patience,
    ProgressQuotient,
    SmoothedSlope,
    SuccessiveRises,
    Target,
)
from convergence.stopper import Best, Stopper
from convergence.wrappers import Rearm, WarmUp

__all__ = [
    "Auto",
    "Best",
    "Budget",
    "Decision",
    "Divergence",
    "GeneralizationLoss",
    "Lookahead",
    "MetricRule",
    "NonFinite",
    "Observation",
    "Patience",
    "ProgressQuotient",
    "Rearm",
    "Reason",
    "Replay",
    "ReplayTable",
    "Rule",
    "SmoothedSlope",
    "State",
    "Stopper",
    "SuccessiveRises",
    "Target",
    "Verdict",
    "WarmUp",
    "judge",
    "parse_rule",
    "presets",
    "replay",
    "replay_many",
]
