"""An instance or more of every rule, combination and wrapper, for the contract tests."""

from convergence import (
    Auto,
    Budget,
    Divergence,
    GeneralizationLoss,
    Lookahead,
    NonFinite,
    Patience,
    ProgressQuotient,
    Rearm,
    SmoothedSlope,
    SuccessiveRises,
    Target,
    WarmUp,
)

LEAVES = [
    Patience(1),
    Patience(3),
    Patience(3, min_delta=0.5),
    Patience(3, min_delta=0.25, relative=True),
    Patience(2, ties="improve"),
    Patience(2, min_delta=0.5, ties="improve"),
    Lookahead(1),
    Lookahead(4),
    SmoothedSlope(2, tol=0),
    SmoothedSlope(4, tol=0.01),
    SmoothedSlope(5, tol=0.0, smoothing=0.5),
    GeneralizationLoss(5),
    GeneralizationLoss(0),
    ProgressQuotient(0.5, 3, train="train"),
    SuccessiveRises(1, k=2),
    SuccessiveRises(2, k=3),
    Target(-1.0),
    Divergence(2.5),
    NonFinite(),
    Budget(steps=12),
    Budget(steps=50, seconds=40),
    Auto(),
    Auto(0.3),
]
"""Rules about one metric."""

COMPOSED = [
    Patience(3) | NonFinite(),
    Patience(2) & SmoothedSlope(3, tol=0.05),
    Patience(3) & (Target(0.5) | Lookahead(2)) | Divergence(4),
    WarmUp(Patience(2), 5),
    WarmUp(SuccessiveRises(1, k=2) | NonFinite(), 3),
    Rearm(Patience(3)),
    Rearm(SmoothedSlope(3, tol=0.0, smoothing=0.25), 0.5),
    Rearm(Lookahead(2) & SuccessiveRises(1, k=1)) | NonFinite(),
    WarmUp(Rearm(SmoothedSlope(2, tol=0)), 4),
    Rearm(WarmUp(Patience(2), 4)),
    Rearm(Auto(0.2)) | NonFinite(),
    Rearm(ProgressQuotient(0.5, 2, train="train") | Budget(steps=30)),
]
"""Rules made of rules."""

CATALOG = LEAVES + COMPOSED

SCALE_FREE = [
    Auto(0.1),
    Patience(3),
    Patience(3, min_delta=0.25, relative=True),
    Lookahead(2),
    SmoothedSlope(4, tol=0.01),
    SmoothedSlope(5, tol=0.0, smoothing=0.5),
    GeneralizationLoss(5),
    ProgressQuotient(0.5, 3, train="train"),
    SuccessiveRises(2, k=2),
    NonFinite(),
    Patience(2) & SmoothedSlope(3, tol=0.05) | NonFinite(),
]
"""Rules whose stops do not depend on the metric's unit."""
