"""steprule: an update rule is written once, as its paper prints it, and every engine is derived from it."""

from . import notation, rules
from .specification import Decay, NonNegative, Positive, Range, Real, Rule, rule

__all__ = ["Decay", "NonNegative", "Positive", "Range", "Real", "Rule", "notation", "rule", "rules"]

__version__ = "0.1.0"
