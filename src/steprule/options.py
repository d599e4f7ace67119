"""The options of the command line that say where trials run, the same for every command that runs some."""

from __future__ import annotations

from typing import Annotated

try:
    import typer
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(f"the command line needs {missing.name}: pip install 'steprule[lab]'") from missing

__all__ = ["Address", "Device", "On"]

On = Annotated[str, typer.Option("--on", help="Where trials run: processes of this machine, or ray, a Ray cluster.")]
Address = Annotated[
    str, typer.Option("--address", help="A Ray cluster's address; unless given, Ray is started on this machine.")
]
Device = Annotated[
    str, typer.Option("--device", help="cuda or cpu: train all settings and seeds at once there, as one batched model.")
]
