"""The airfoil experiment of *Dive into Deep Learning* 12.9, and its exercises, run and set beside the book's figures."""

from .reproduction import ENGINES, Progress, reproduce
from .results import Missing, Reproduction, Stopped, Training

__all__ = ["ENGINES", "Missing", "Progress", "Reproduction", "Stopped", "Training", "reproduce"]
