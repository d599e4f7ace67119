"""The experiment in each framework. A module here imports its framework, and is imported only in a process of its own;
NumPy's, which all have, anywhere.

Each has `WAYS`, which makes a model of `(plan, examples, seed)` for each way to train, and `PACKAGES`, whose versions are
reported.
"""
