"""How much staleness a rule stands: the same training by 1, 10, 100 and 200 replicas of a simulated cluster."""

from .study import GRIDS, REPLICAS, Row, Staleness, Study, study

__all__ = ["GRIDS", "REPLICAS", "Row", "Staleness", "Study", "study"]
