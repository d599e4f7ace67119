"""What a simulated cluster costs: gradients per second of the MNIST net by 1, 100 and 200 replicas, beside plain training,
and the memory that they take.

    python benchmarks/simulate.py [--updates 1200] [--rounds 5] [--threads 2] [--rule adadelta] [--json FILE]

The contenders take turns, in one process, and each number is a median of the rounds. Peak memory is that
of a process of its own (on Linux).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final

import torch
from steprule.cluster import simulate
from steprule.lab.cluster.simulated import CONDITIONS
from steprule.lab.grids import find_rule
from steprule.lab.machine import facts
from steprule.lab.problem import Problem
from steprule.lab.problems.mnist import mnist
from steprule.lab.training import train

REPLICAS: Final = (1, 100, 200)
RATES: Final = {"sgd": {"lr": 0.1}, "momentum": {"lr": 0.01}, "adagrad": {"lr": 0.01}}


def problem(updates: int) -> Problem:
    """MNIST with as many batches in an epoch as there are updates; what measures it is no part of the benchmark."""
    whole = mnist()
    (inputs, targets), examples = whole.train, updates * whole.batch_size
    times = -(-examples // len(inputs))
    data = inputs.repeat(times, 1)[:examples], targets.repeat(times)[:examples]
    return replace(whole, train=data, test=(inputs[:100], targets[:100]))


def seconds(of: Problem, rule: str, replicas: int | None) -> tuple[float, float]:
    """Return wall and processor seconds of one epoch: plain where `replicas` is None."""
    wall, processor = time.perf_counter(), time.process_time()
    if replicas is None:
        list(train(of, find_rule(rule), RATES.get(rule, {}), 0, 1))
    else:
        simulate(
            of,
            find_rule(rule),
            RATES.get(rule, {}),
            replicas=replicas,
            updates=of.batches_per_epoch,
            conditions=CONDITIONS,
        )
    return time.perf_counter() - wall, time.process_time() - processor


def peak(chosen: argparse.Namespace, replicas: int | None) -> float:
    """Return the peak memory, in GB, of a process that does it once."""
    options = [
        "--updates",
        chosen.updates,
        "--threads",
        chosen.threads,
        "--rule",
        chosen.rule,
        "--peak-of",
        replicas or 0,
    ]
    done = subprocess.run([sys.executable, __file__, *map(str, options)], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("updates", 1200), ("rounds", 5), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rule", default="adadelta")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    of = problem(chosen.updates)
    if chosen.peak_of is not None:
        seconds(of, chosen.rule, chosen.peak_of or None)
        # Linux's own count of this program: that of `resource` begins with the parent's.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
        return
    contenders = (None, *REPLICAS)
    seconds(of, chosen.rule, None)
    rounds = [{each: seconds(of, chosen.rule, each) for each in contenders} for _ in range(chosen.rounds)]
    kept = []
    print("| | gradients/s | of plain | of plain, processor time | peak memory, GB |\n|---|---|---|---|---|")
    for each in contenders:
        wall, share, processor = (
            median(values)
            for values in zip(
                *(
                    (found[each][0], found[None][0] / found[each][0], found[None][1] / found[each][1])
                    for found in rounds
                ),
                strict=True,
            )
        )
        name = "plain training" if each is None else f"{each} simulated replica{'s' * (each > 1)}"
        row = {"what": name, "per_second": chosen.updates / wall, "of_plain": share, "of_plain_processor": processor}
        kept.append(row | {"peak_gb": peak(chosen, each), "rounds": [found[each] for found in rounds]})
        print(
            f"| {name} | {row['per_second']:.0f} | {share:.2f} | {processor:.2f} | {kept[-1]['peak_gb']:.2f} |",
            flush=True,
        )
    settings = {name: getattr(chosen, name) for name in ("updates", "threads", "rule")}
    chosen.json.write_text(
        json.dumps({"machine": facts(), **settings, "rows": kept}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
