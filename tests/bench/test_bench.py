"""The benchmark's arithmetic, its turns and its JSON; how fast anything is, no test says."""

from __future__ import annotations

import itertools
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

import steprule
import torch
from steprule import rules
from steprule.bench import (
    GPU_SIZES,
    SIZES,
    as_json,
    epoch,
    first_step,
    measure_epoch,
    measure_first_step,
    measure_sparse,
    measure_steps,
    measure_steps_on_gpu,
    on_gpu,
    processes,
    require_gpu,
    tables,
)
from steprule.bench import sparse as bench_sparse
from steprule.bench import steps as bench_steps
from steprule.bench.sparse import SparseBench
from steprule.bench.steps import LOW, TWINS, StepBench
from steprule.bench.timing import Times, interleaved
from steprule.program import lower
from torch import Tensor

ROOT = Path(__file__).parents[2]


def bench(**changes: Any) -> StepBench:
    times = {
        "steprule": Times((0.001, 0.003, 0.002)),
        "torch for-loop": Times((0.030, 0.020, 0.040)),
        "torch foreach": Times((0.010,)),
        "torch fused": Times((0.006,)),
        "torch compiled": Times((0.005,)),
        "limit": Times((0.0015,)),
    }
    usual: dict[str, Any] = {
        "size": "mnist",
        "rule": "adam",
        "tensors": 6,
        "elements": 1_000_000,
        "moved": 28,
        "times": times,
        "compile_seconds": 20.0,
    }
    return StepBench(**usual | changes)


class TestTimes:
    def test_the_median_is_the_middle_one(self) -> None:
        assert Times((3.0, 1.0, 2.0)).median == 2.0
        assert Times((4.0, 1.0, 2.0, 3.0)).median == 2.5

    @pytest.mark.parametrize(
        ("seconds", "quartiles"),
        [
            ((1.0, 2.0, 3.0, 4.0, 5.0), (2.0, 4.0)),
            ((5.0, 3.0, 1.0, 4.0, 2.0), (2.0, 4.0)),
            ((1.0, 2.0), (1.25, 1.75)),
            ((7.0,), (7.0, 7.0)),
        ],
    )
    def test_a_quarter_lies_below_and_above_the_quartiles(
        self, seconds: tuple[float, ...], quartiles: tuple[float, float]
    ) -> None:
        assert Times(seconds).quartiles == quartiles


def test_contenders_take_turns_and_another_goes_first_each_time() -> None:
    calls: list[str] = []
    times = interleaved({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=4, steps=2)  # type: ignore[misc]
    # One call that is not timed, and two that are.
    assert "".join(calls) == "".join(name * 3 for order in ("abc", "bca", "cab", "abc") for name in order)
    assert {name: len(each.seconds) for name, each in times.items()} == {"a": 8, "b": 8, "c": 8}
    assert all(second >= 0 for each in times.values() for second in each.seconds)


class TestRatios:
    def test_the_best_of_eager_torch_is_never_the_compiled_one(self) -> None:
        assert bench().best_of_eager == "torch fused"
        del (times := dict(bench().times))["torch fused"]
        assert bench(times=times).best_of_eager == "torch foreach"

    def test_bandwidth_is_bytes_over_the_median(self) -> None:
        assert bench().bandwidth("steprule") == 28 * 1_000_000 / 0.002
        assert bench().bandwidth("torch foreach") == 28 * 1_000_000 / 0.010

    def test_the_share_of_the_limit_is_a_ratio_of_medians(self) -> None:
        assert bench().share_of_limit == 0.0015 / 0.002

    def test_the_table_prints_them(self) -> None:
        said = printed(tables([bench()], {}, {}))
        assert re.search(r"adam +│ +mnist: 6 tensors, 1,000,000 +│ +2 \(1.5-2.5\) +│ +30 \(25-35\) +│", said)
        # torch fused over ours, twice; compiled; bytes; GB/s; share.
        assert re.search(r"adam +│ +mnist +│ +3.00 +│ +3.00 +│ +2.50 +│ +28 +│ +14.0 +│ +0.75 +│", said)

    def test_what_was_not_measured_is_a_dash(self) -> None:
        times = {name: bench().times[name] for name in ("steprule", "torch for-loop", "torch foreach", "limit")}
        both = [bench(), bench(rule="adadelta", times=times, compile_seconds=None)]
        said = printed(tables(both, {}, {}))
        assert re.search(r"adadelta +│ +mnist +│ +5.00 +│ +- +│ +- +│ +28 +│", said)

    def test_an_epoch_is_compared_with_its_products_and_with_the_usual_loop(self) -> None:
        times = {"steprule": Times((1.5,)), "usual loop": Times((3.0,)), "products": Times((1.0,))}
        said = printed(tables([], {}, times))
        assert re.search(r"steprule +│ +1.5 \(1.5-1.5\) +│ +1.50 +│ +2.00 +│", said)

    def test_nothing_measured_prints_nothing(self) -> None:
        assert tables([], {}, {}) == []


def printed(made: list[Table]) -> str:
    console = Console(file=StringIO(), width=200)
    for table in made:
        console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


class TestJson:
    def test_holds_every_repetition_and_what_it_was_made_with(self) -> None:
        first, whole = {"cold": Times((2.0, 3.0))}, {"steprule": Times((1.5,))}
        made = json.loads(json.dumps(as_json([bench()], first, whole)))
        assert set(made["made"]) == {
            "date",
            "steprule",
            "torch",
            "python",
            "processor",
            "cores",
            "threads",
            "vectors",
        }
        assert made["made"]["steprule"] == steprule.__version__
        assert made["made"]["torch"] == torch.__version__
        assert made["steps"] == [
            {
                "rule": "adam",
                "size": "mnist",
                "tensors": 6,
                "elements": 1_000_000,
                "bytes_per_element": 28,
                "compile_seconds": 20.0,
                "seconds": {name: list(times.seconds) for name, times in bench().times.items()},
            }
        ]
        assert made["first_step"] == {"cold": [2.0, 3.0]}
        assert made["epoch"] == {"steprule": [1.5]}


class TestSizes:
    @pytest.mark.parametrize(
        ("size", "tensors", "elements"),
        [("mnist", 6, 545_810), ("small", 400, 832_000), ("large", 1, 33_554_432), ("transformer", 146, 85_056_000)],
    )
    def test_are_those_of_the_documentation(self, size: str, tensors: int, elements: int) -> None:
        assert len(SIZES[size]) == tensors
        assert sum(torch.Size(shape).numel() for shape in SIZES[size]) == elements


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "mnist", [(3, 4), (5,)])  # type: ignore[arg-type]  # it is a dict
    monkeypatch.setattr(bench_steps, "REPEATS", ((1_000, 2, 3),))


@pytest.mark.usefixtures("tiny")
class TestSteps:
    @pytest.mark.parametrize("name", TWINS)
    def test_every_form_of_a_rule_is_measured_as_often(self, name: str) -> None:
        made = measure_steps("mnist", name, compiled=False)
        fused = {"torch fused"} if name != "adadelta" else set()
        low = set(LOW) if TWINS[name].rule.slots else set()
        assert set(made.times) == {"steprule", "torch for-loop", "torch foreach", "limit"} | fused | low
        assert {len(times.seconds) for times in made.times.values()} == {6}
        assert (made.size, made.rule, made.tensors, made.elements) == ("mnist", name, 2, 17)
        assert made.moved == lower(rules.ALL[name]).bytes_per_element(4)
        assert made.compile_seconds is None

    @pytest.mark.parametrize("name", TWINS)
    def test_the_limit_moves_the_memory_of_the_step(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        lowered = []
        monkeypatch.setattr(bench_steps, "lower", lambda spec: lowered.append(lower(spec)) or lower(spec))
        measure_steps("mnist", name, compiled=False)
        mine, limit = lowered
        assert limit.bytes_per_element(4) == mine.bytes_per_element(4)

    def test_contenders_start_from_the_same_parameters(self) -> None:
        first, second = (bench_steps._parameters([(3, 4), (5,)]) for _ in range(2))
        for one, other in zip(first, second, strict=True):
            assert one is not other
            assert torch.equal(one, other)
            assert isinstance(one.grad, Tensor)
            assert isinstance(other.grad, Tensor)
            assert torch.equal(one.grad, other.grad)

    @pytest.mark.parametrize("name", TWINS)
    def test_twins_are_of_one_rule(self, name: str) -> None:
        assert TWINS[name].mine.rule is rules.ALL[name]  # type: ignore[attr-defined]  # ours have one
        assert TWINS[name].theirs.__name__.lower() == name
        assert TWINS[name].theirs.__module__.startswith("torch.optim.")


class TestStepsOnAGpu:
    """Here on the CPU; what differs is who waits for whom, and what the limit is."""

    @pytest.fixture(autouse=True)
    def _tiny(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(on_gpu.GPU_SIZES, "huge", [(30,)])  # type: ignore[arg-type]  # it is a dict
        monkeypatch.setattr(on_gpu, "_STEPS", ((100, 3),))

    def measured(self, name: str = "adam") -> StepBench:
        return measure_steps_on_gpu("huge", name, compiled=False, device="cpu")

    def test_there_is_one_of_a_thousand_million_elements(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        assert GPU_SIZES["huge"] == [(1_000_000_000,)]
        assert GPU_SIZES.keys() - SIZES.keys() == {"huge"}

    @pytest.mark.parametrize("name", TWINS)
    def test_every_form_of_a_rule_is_measured_as_often(self, name: str) -> None:
        made = self.measured(name)
        fused = {"torch fused"} if name != "adadelta" else set()
        assert set(made.times) == {"steprule", "torch for-loop", "torch foreach", "limit"} | fused
        assert {len(times.seconds) for times in made.times.values()} == {3}
        assert (made.elements, made.moved) == (30, lower(rules.ALL[name]).bytes_per_element(4))

    @pytest.mark.parametrize("most", [2, 7, 100])
    def test_the_limit_copies_the_bytes_of_the_step(self, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(on_gpu, "_COPIED", most)
        copied, copy = [], Tensor.copy_
        monkeypatch.setattr(Tensor, "copy_", lambda to, of: copied.append(of.numel()) or copy(to, of))
        on_gpu._copy(28 * 30, "cpu")()
        assert sum(copied) * 8 == 28 * 30
        assert max(copied) <= most

    def test_what_does_not_fit_is_left_out_unless_it_is_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any, **__: Any) -> Any:
            raise torch.OutOfMemoryError("full")

        monkeypatch.setattr(torch.optim.Adam, "step", full)
        assert set(self.measured().times) == {"steprule", "limit"}
        monkeypatch.setattr(TWINS["adam"].mine, "step", full)
        with pytest.raises(torch.OutOfMemoryError):
            self.measured()

    def test_a_graphics_card_and_triton_are_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(on_gpu.gpu, "installed", lambda: True)
        require_gpu()
        monkeypatch.setattr(on_gpu.gpu, "installed", lambda: False)
        with pytest.raises(ValueError, match="triton, which makes the kernels there, is not installed"):
            require_gpu()


class TestSparse:
    @pytest.mark.parametrize("name", bench_sparse.RULES)
    def test_contenders_are_measured_as_often_and_rows_are_distinct(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for each, value in {"ROWS": 20, "WIDTH": 3, "TOUCHED": 4, "_REPEATS": (2, 3)}.items():
            monkeypatch.setattr(bench_sparse, each, value)
        gradient = bench_sparse._gradient(torch.Generator())
        assert not gradient.is_coalesced()
        assert gradient.coalesce().indices().shape == (1, 4)
        made = measure_sparse(name)
        assert set(made.times) == {"sparse", "dense"} | ({"torch"} if name != "adadelta" else set())
        assert {len(times.seconds) for times in made.times.values()} == {6}
        assert (made.rule, made.rows, made.width, made.touched) == (name, 20, 3, 4)

    def test_the_table_has_the_ratios(self) -> None:
        times = {"sparse": Times((0.001,)), "dense": Times((0.25,)), "torch": Times((0.005,))}
        del (without := dict(times))["torch"]
        both = [SparseBench("adagrad", 20, 3, 4, times), SparseBench("adadelta", 20, 3, 4, without)]
        said = printed(tables([], {}, {}, both))
        assert re.search(r"adagrad +│ +1 \(1-1\) +│ +250 \(250-250\) +│ +5 \(5-5\) +│ +250.0 +│ +5.0 +│", said)
        assert re.search(r"adadelta +│ +1 \(1-1\) +│ +250 \(250-250\) +│ +- +│ +250.0 +│ +- +│", said)


class Answers:
    """Stands for `subprocess.run`: notes what is started in which environment, and answers with numbers."""

    def __init__(self, *numbers: str) -> None:
        self.numbers: Iterator[str] = iter(numbers)
        self.started: list[tuple[list[str], dict[str, str]]] = []

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        self.started.append((command, options["env"]))
        return subprocess.CompletedProcess(command, 0, f"{next(self.numbers)}\n".encode(), b"")


class TestProcesses:
    def test_epochs_take_turns_in_as_many_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = Answers("1.5", "3.0", "1.0", "1.6", "3.1", "1.1")
        monkeypatch.setattr(processes.subprocess, "run", answers)
        made = measure_epoch(rounds=2)
        assert made == {"steprule": Times((1.5, 1.6)), "usual loop": Times((3.0, 3.1)), "products": Times((1.0, 1.1))}
        kinds = [command[-2] for command, _ in answers.started]
        assert kinds == ["steprule", "usual loop", "products"] * 2
        threads = str(torch.get_num_threads())
        assert {variables["OMP_NUM_THREADS"] for _, variables in answers.started} == {threads}
        assert {command[-1] for command, _ in answers.started} == {str(torch.get_num_threads())}

    def test_first_steps_are_cold_then_cached_in_a_folder_of_their_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = Answers("2.0", "0.4", "0.5", "2.1", "0.3", "0.6")
        monkeypatch.setattr(processes.subprocess, "run", answers)
        made = measure_first_step(rounds=2)
        assert made == {"cold": Times((2.0, 2.1)), "cached": Times((0.4, 0.3)), "torch": Times((0.5, 0.6))}
        folders = [variables["STEPRULE_CACHE"] for _, variables in answers.started]
        assert len(set(folders[:3])) == len(set(folders[3:])) == 1 and folders[0] != folders[3]
        codes = [command[-1] for command, _ in answers.started]
        assert codes[0] == codes[1] == codes[0].replace("torch.optim", "steprule.torch") != codes[2]
        assert [code.count("steprule") for code in codes] == [2, 2, 0] * 2

    def test_one_that_fails_is_told_with_its_last_words(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(first_step, "_CHILD", "raise SystemExit('no room for {module}')")
        says = "the first step (cold) could not be measured: its process ended with exit status 1, saying last: no room for"
        with pytest.raises(RuntimeError, match=re.escape(says)):
            measure_first_step(rounds=1)

    def test_an_epoch_makes_the_products_of_its_net_and_no_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shapes: list[tuple[torch.Size, torch.Size]] = []
        product = torch.mm
        monkeypatch.setattr(torch, "mm", lambda a, b, out: shapes.append((a.shape, b.shape)) or product(a, b, out=out))
        epoch._products(2 * epoch.BATCH)
        forward = [((100, 784), (784, 500)), ((100, 500), (500, 300)), ((100, 300), (300, 10))]
        backward = [
            ((10, 100), (100, 300)),
            ((100, 10), (10, 300)),
            ((300, 100), (100, 500)),
            ((100, 300), (300, 500)),
            ((500, 100), (100, 784)),
        ]
        assert [(tuple(a), tuple(b)) for a, b in shapes] == 2 * (forward + backward)

    @pytest.mark.parametrize("run", [epoch._lab, epoch._usual])
    def test_an_epoch_takes_every_batch(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        batches: list[int] = []
        net = epoch.paper_net

        def watched(seed: int) -> torch.nn.Module:
            made = net(seed)
            made.register_forward_pre_hook(lambda module, inputs: batches.append(len(inputs[0])))
            return made

        monkeypatch.setattr(epoch, "paper_net", watched)
        assert run(250) > 0
        assert batches == [100, 100, 50]


@pytest.mark.serial
def test_a_process_measures_its_first_step() -> None:
    made = measure_first_step(rounds=1)
    assert {kind: len(times.seconds) for kind, times in made.items()} == {"cold": 1, "cached": 1, "torch": 1}
    assert all(second > 0 for times in made.values() for second in times.seconds)


@pytest.mark.serial
def test_a_process_measures_an_epoch() -> None:
    command = [sys.executable, "-m", "steprule.bench.epoch", "products", str(torch.get_num_threads())]
    assert float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) > 0


def _rows(page: str, head: str) -> list[list[str]]:
    """Return the rows of the table of a page whose first line begins with `head`."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith(head)]
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def _milliseconds(times: dict[str, list[float]], *names: str) -> list[str]:
    return [f"{1000 * statistics.median(times[name]):.3g}" if name in times else "-" for name in names]


class TestTheCommittedRun:
    """The tables of `benchmarks/README.md` are those of the file that it names."""

    RUN = json.loads((ROOT / "benchmarks" / "cpu.json").read_text(encoding="utf-8"))

    def test_steps(self) -> None:
        columns = ("steprule", "torch for-loop", "torch foreach", "torch fused", "torch compiled", "limit")
        rows = [
            [
                each["rule"],
                f"{each['size']}: {each['tensors']} tensors, {each['elements']:,}",
                *_milliseconds(each["seconds"], *columns),
            ]
            for each in self.RUN["steps"]
        ]
        assert _rows("benchmarks/README.md", "| rule | parameters | steprule |") == rows

    def test_state_in_fewer_bits(self) -> None:
        rows = [
            [each["rule"], each["size"], *_milliseconds(each["seconds"], "steprule", "bfloat16 state", "int8 state")]
            for each in self.RUN["steps"]
            if each["size"] in ("large", "transformer")
        ]
        assert _rows("benchmarks/README.md", "| rule | parameters | float32 state |") == rows

    def test_sparse_gradients(self) -> None:
        rows = [
            [each["rule"], *_milliseconds(each["seconds"], "sparse", "dense", "torch")] for each in self.RUN["sparse"]
        ]
        assert [row[:4] for row in _rows("benchmarks/README.md", "| rule | ours | ours, dense")] == rows

    def test_the_readme_says_the_same(self) -> None:
        shown = [
            [float(cell.removesuffix(" ms")) for cell in row[3:] if cell[0].isdigit()]
            for row in _rows("README.md", "| | eager")
        ]
        found = []
        for rule, size in itertools.product(("adadelta", "adam"), ("mnist", "small", "large")):
            (times,) = [each["seconds"] for each in self.RUN["steps"] if (each["rule"], each["size"]) == (rule, size)]
            found.append([1000 * statistics.median(times[name]) for name in ("torch compiled", "steprule", "limit")])
        assert shown[:6] == [pytest.approx(row, abs=0.006, rel=0.01) for row in found]


def test_the_table_of_low_precision_is_of_its_file() -> None:
    runs = json.loads((ROOT / "benchmarks" / "low_precision.json").read_text(encoding="utf-8"))
    for rule, form, _, mean, *_ in _rows("docs/low_precision.md", "| rule | state | bytes"):
        errors = [each["error"] for each in runs if (each["rule"], each["form"]) == (rule, form)]
        assert (len(errors), f"{statistics.mean(errors):.3f}") == (10, mean)


def test_the_table_of_a_whole_training_is_of_its_file() -> None:
    epochs = json.loads((ROOT / "benchmarks" / "late.json").read_text(encoding="utf-8"))["epochs"]
    for number, *cells, subnormal in _rows("benchmarks/README.md", "| epoch | ADADELTA, ours"):
        found, shares = [], []
        for ours, theirs in (("ADADELTA, steprule", "ADADELTA, foreach"), ("Adam, steprule", "Adam, fused")):
            mine, other = (epochs[name][int(number) - 1] for name in (ours, theirs))
            found += [f"{1000 * each['seconds']:.3f}" for each in (mine, other)]
            found.append(f"{other['seconds'] / mine['seconds']:.2f}")
            shares.append(f"{100 * other['subnormal']:.1f} %")
        assert (cells, subnormal) == (found, ", ".join(shares)), number


def test_the_table_of_curvature_is_of_its_file() -> None:
    runs = json.loads((ROOT / "benchmarks" / "curvature.json").read_text(encoding="utf-8"))["results"]
    names = ["plain", "a step by SGD", "a step by ADADELTA", "a step by torch.optim.Adadelta"]
    names += ["bbprop", "bbprop and g2", "g2 alone", "hutchinson"]
    rows = _rows("benchmarks/README.md", "| | batch 1 | over plain")
    for (_, *cells), name in zip(rows, names, strict=True):
        found = []
        for batch in (1, 100):
            (run,) = [each for each in runs if (each["batch"], each["contender"]) == (batch, name)]
            found += [1000 * statistics.median(run["seconds"]), run["ratio"]]
        for cell, number in zip(cells, found, strict=True):
            assert float(cell) == pytest.approx(number, abs=0.5001 * 10 ** -len(cell.partition(".")[2])), name
