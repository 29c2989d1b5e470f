"""One rule per file; `__all__` is the registry of those that can be written as text."""

from convergence.rules.auto import Auto
from convergence.rules.budget import Budget
from convergence.rules.divergence import Divergence
from convergence.rules.generalization_loss import GeneralizationLoss
from convergence.rules.lookahead import Lookahead
from convergence.rules.non_finite import NonFinite
from convergence.rules.patience import Patience
from convergence.rules.progress_quotient import ProgressQuotient
from convergence.rules.smoothed_slope import SmoothedSlope
from convergence.rules.successive_rises import SuccessiveRises
from convergence.rules.target import Target

__all__ = [
    "Auto",
    "Budget",
    "Divergence",
    "GeneralizationLoss",
    "Lookahead",
    "NonFinite",
    "Patience",
    "ProgressQuotient",
    "SmoothedSlope",
    "SuccessiveRises",
    "Target",
]
