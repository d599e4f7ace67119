"""Arguments and options that several commands have: what is trained, how replicas work, and where trials run."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "Address",
    "Device",
    "Grid",
    "Jobs",
    "LocalLr",
    "NFetch",
    "NPush",
    "On",
    "OnServer",
    "Resume",
    "Trained",
    "Values",
    "WarmStart",
    "names",
    "one_of",
]

Trained = Annotated[
    str,
    typer.Argument(
        help="digits, mnist, airfoil, speech, or your own: package.module:function or path/to/file.py:function"
    ),
]
OnServer = Annotated[str, typer.Option("--rule", help="The rule that the shards apply; your own as for the problem.")]
Values = Annotated[list[str] | None, typer.Option("--set", help="A hyperparameter, name=value; may be repeated.")]
NFetch = Annotated[int, typer.Option("--n-fetch", help="Steps from one fetch to the next.")]
NPush = Annotated[int, typer.Option("--n-push", help="Steps from one push to the next.")]
LocalLr = Annotated[float | None, typer.Option("--local-lr", help="Rate of a replica's own steps between two fetches.")]
WarmStart = Annotated[int, typer.Option("--warm-start", help="Updates for which one replica trains alone.")]

Grid = Annotated[
    list[str] | None, typer.Option("--grid", help="Values of a hyperparameter, rule.name=a,b,c; may be repeated.")
]
Jobs = Annotated[int | None, typer.Option("--jobs", help="Processes; as many as there are cores unless given.")]
Resume = Annotated[bool, typer.Option("--resume/--fresh", help="Keep what is finished there, or begin anew.")]
On = Annotated[str, typer.Option("--on", help="Where trials run: processes of this machine, or ray, a Ray cluster.")]
Address = Annotated[
    str,
    typer.Option(
        "--address", help="A Ray cluster to join: auto, or host:port; unless given, Ray is started on this machine."
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="cuda or cpu: train all settings and seeds at once there, as one batched model.")
]


def names(text: str) -> list[str]:
    """Return the names that stand in an option's value with commas between them."""
    return [name.strip() for name in text.split(",")]


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise `ValueError` where an option's value is not one of those that are allowed."""
    if value not in allowed:
        raise ValueError(f"{option} is {value!r}; allowed are {', '.join(each for each in allowed if each)}")
