"""Two rules as a user would write them, in a file of their own: those of the examples."""

from examples.own_rule import lion, yogi

__all__ = ["lion", "yogi"]
