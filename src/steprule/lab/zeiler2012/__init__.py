"""The experiments of Zeiler's ADADELTA paper (2012) on MNIST, run again beside its figures."""

from .experiments import Cell, Part, Reproduced, Row, Run, check, parts, reproduce

__all__ = ["Cell", "Part", "Reproduced", "Row", "Run", "check", "parts", "reproduce"]
