"""Does low-precision state cost accuracy? The paper's MNIST net, by ADADELTA and Adam, ten seeds for each form of state.

    python benchmarks/low_precision.py [--epochs 4] [--seeds 10] [--jobs 2] [--json benchmarks/low_precision.json]

Each trial is written as it ends, and the same command goes on after an interruption. The test error is that of the last
epoch: nothing is chosen on it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from steprule import rules
from steprule.lab.problems.mnist import mnist
from steprule.lab.training import train
from steprule.torch import optimizer

FORMS: Final[Mapping[str, Mapping[str, Any]]] = {
    "adadelta": {
        "float32": {},
        "bfloat16": {"state_dtype": torch.bfloat16},
        "int8": {"state_dtype": "int8"},
    },
    "adam": {
        "float32": {},
        "bfloat16": {"state_dtype": torch.bfloat16},
        "int8": {"state_dtype": "int8"},
        "int8, exp_avg_sq in bfloat16": {"state_dtype": {"exp_avg": "int8", "exp_avg_sq": torch.bfloat16}},
    },
}


def trial(task: tuple[str, str, int, int]) -> dict[str, Any]:
    name, form, seed, epochs = task
    torch.set_num_threads(1)
    options = {**FORMS[name][form], **({"seed": seed} if form != "float32" else {})}
    *_, last = train(mnist(), rules.ALL[name], options, seed, epochs)
    return {"rule": name, "form": form, "seed": seed, "epochs": last.number, "error": last.test, "loss": last.loss}


def bytes_of_state(name: str, form: str) -> float:
    """Return the bytes of state per parameter, measured on the net's largest layer."""
    weight = torch.nn.Parameter(torch.ones(500, 784))
    weight.grad = torch.ones_like(weight)
    stepper = optimizer(rules.ALL[name])([weight], **FORMS[name][form])
    stepper.step()
    return sum(value.nbytes for value in stepper.state[weight].values()) / weight.numel()


def table(trials: list[dict[str, Any]], epochs: int) -> str:
    lines = [
        "| rule | state | bytes a parameter | test error, % | standard error | difference from float32 | standard error |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, forms in FORMS.items():
        errors = {
            form: {each["seed"]: each["error"] for each in trials if (each["rule"], each["form"]) == (name, form)}
            for form in forms
        }
        for form, found in errors.items():
            some = list(found.values())
            if len(some) < 2:
                continue
            # The same seed has the same initial weights and order of examples in each form.
            apart = [error - errors["float32"][seed] for seed, error in found.items() if seed in errors["float32"]]
            standard, of_apart = (statistics.stdev(each) / math.sqrt(len(each)) for each in (some, apart))
            lines.append(
                f"| {name} | {form} | {bytes_of_state(name, form):.2f} | {statistics.mean(some):.3f} | {standard:.3f} | "
                f"{statistics.mean(apart):+.3f} | {of_apart:.3f} |"
            )
    seeds = max(each["seed"] for each in trials) + 1
    return "\n".join([f"After {epochs} epochs, {seeds} seeds:", "", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("epochs", 4), ("seeds", 10), ("jobs", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    chosen = parser.parse_args()
    trials: list[dict[str, Any]] = json.loads(chosen.json.read_text()) if chosen.json.exists() else []
    done = {(each["rule"], each["form"], each["seed"], each["epochs"]) for each in trials}
    seeds = itertools.product(range(chosen.seeds), ((name, form) for name in FORMS for form in FORMS[name]))
    tasks = [(*pair, seed, chosen.epochs) for seed, pair in seeds if (*pair, seed, chosen.epochs) not in done]
    with multiprocessing.get_context("spawn").Pool(chosen.jobs) as pool:
        for number, each in enumerate(pool.imap(trial, tasks), 1):
            trials.append(each)
            aside = chosen.json.with_suffix(".tmp")
            aside.write_text(json.dumps(trials, indent=1))
            aside.replace(chosen.json)
            print(f"{number}/{len(tasks)} {each}", flush=True)
    print(table(trials, chosen.epochs))


if __name__ == "__main__":
    main()
