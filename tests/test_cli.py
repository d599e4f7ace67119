"""The command line: what it prints, where, and what it says of words that cannot be."""

from __future__ import annotations

import ast
import errno
import importlib.util
import inspect
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from rich.console import Console

import steprule.bench
import steprule.lab.comparison
import steprule.lab.display
import steprule.report.page
import torch
from steprule import around, cli, equations, rules
from steprule.bench import sparse as bench_sparse
from steprule.bench import steps as bench_steps
from steprule.bench.timing import Times
from steprule.kernels import cpu, gpu
from steprule.lab import Comparison, Epoch, Metric, Outcome, Problem, Setting, Trial, machine
from steprule.lab.comparison import RULES
from steprule.lab.data import DATA_SETS
from steprule.lab.display import Display
from steprule.lab.grids import RATES
from steprule.program import lower
from tests.lab import small
from tests.lab.data.toy import put_toy, register_toy
from tests.report.comparisons import realistic
from tests.requirements import require_release

COMMANDS = ("compare", "show", "data", "bench")
ROOT = Path(__file__).parents[1]
OWN_RULE = ROOT / "examples" / "own_rule.py"
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


class Ended(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process, with nobody watching."""

    def called(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["steprule", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        code = caught.value.code
        return Ended(code if isinstance(code, int) else 0 if code is None else 1, *capsys.readouterr())

    return called


def process(*words: str, cwd: Path | None = None, **environment: str) -> Ended:
    """The command as a process, its output piped."""
    command = [sys.executable, "-m", "steprule", *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=os.environ | environment)
    return Ended(done.returncode, done.stdout, done.stderr)


def one_sentence(ended: Ended) -> str:
    """Return what was said of the user's words: one line on stderr, with status 2 and nothing else."""
    assert (ended.status, ended.out) == (2, "")
    assert re.fullmatch(r"steprule: [^\n]+\n", ended.err), ended.err
    return ended.err.removeprefix("steprule: ").rstrip()


def told_of(text: str) -> list[tuple[str, list[str]]]:
    """The commands that a page names, each with the options that it gives to them."""
    joined = re.sub(r"\\?\n +(?=\[|--)", " ", text)
    found = re.findall(r"(?:^    |^|`|\$ )steprule ((?:[a-z]\w* )[^`\n#]*)", joined, re.MULTILINE)
    return [(words, re.findall(r"(?<![\w-])--[a-z][a-z-]*", words)) for words in found]


class TestTheGuide:
    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
    def test_names_no_option_that_its_command_lacks(self, page: Path) -> None:
        for words, options in told_of(page.read_text(encoding="utf-8")):
            command: Any = typer.main.get_command(cli.app)
            for word in words.split():
                command = getattr(command, "commands", {}).get(word, command)
            known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
            assert set(options) <= known, words

    def test_is_read(self) -> None:
        usage = told_of((ROOT / "docs" / "zeiler2012.md").read_text(encoding="utf-8"))[0][1]
        assert {"--seeds", "--jobs", "--resume", "--fresh", "--published", "--seed"} <= set(usage)


class TestHelp:
    def test_lists_the_commands(self, run: Run) -> None:
        ended = run("--help")
        assert ended.status == 0
        listed = ended.out.partition("Commands:")[2]
        assert re.findall(r"^  (\w+)  ", listed, re.MULTILINE) == [*COMMANDS, "reproduce", "cluster"]

    def test_is_what_no_word_at_all_gets(self, run: Run) -> None:
        if importlib.util.find_spec("click"):  # late versions of typer do without
            require_release("click", "8.2", "to say how a program is used is no error")
        ended = run()
        assert ended.status == 2
        assert ended.out + ended.err == run("--help").out

    def test_tells_of_replicas(self, run: Run) -> None:
        assert "mnist@100 is mnist, trained by 100 simulated replicas" in " ".join(run("compare", "--help").out.split())

    def test_says_which_version_it_is(self, run: Run) -> None:
        ended = run("--version")
        assert (ended.status, ended.out, ended.err) == (0, f"steprule {steprule.__version__}\n", "")

    @pytest.mark.parametrize("command", COMMANDS)
    def test_says_what_a_command_does(self, run: Run, command: str) -> None:
        ended = run(command, "--help")
        assert (ended.status, ended.err) == (0, "")
        said = " ".join(ended.out.split())
        assert " ".join(str(getattr(cli, command).__doc__).split()) in said

    @pytest.mark.parametrize(
        ("command", "options"),
        [
            ("compare", "--rules --epochs --seeds --rates --grid --jobs --out --resume --fresh"),
            ("show", "--engine --dtype --weight-decay --maximize"),
            ("data", ""),
            ("bench", "--sizes --rules --compile --no-compile --first-step --epoch --sparse --device --json"),
        ],
    )
    def test_says_what_each_option_is(self, run: Run, command: str, options: str) -> None:
        out = run(command, "--help").out
        described = dict(re.findall(r"^  (--\w[\w-]*)[^\n]*?  +([^\n]*)", out, re.MULTILINE))
        assert all(described.values())
        for option in options.split():
            assert re.search(rf"{option}\b", out)

    @pytest.mark.parametrize("command", ["compare", "show"])
    def test_names_every_rule(self, run: Run, command: str) -> None:
        assert ", ".join(rules.ALL) in " ".join(run(command, "--help").out.split())
        assert tuple(rules.ALL)[:8] == steprule.lab.comparison.RULES  # "the first eight unless given"

    def test_names_every_size_and_rule_of_the_benchmark(self, run: Run) -> None:
        out = run("bench", "--help").out
        for name in (*bench_steps.SIZES, *bench_steps.TWINS):
            assert re.search(rf"\b{name}\b", out)


class TestShow:
    @pytest.mark.parametrize("rule", rules.ALL.values(), ids=lambda rule: rule.name)
    def test_prints_the_equations_and_what_a_step_costs(self, run: Run, rule: Any) -> None:
        ended = run("show", rule.name)
        assert (ended.status, ended.err) == (0, "")
        block, source, cost = ended.out.strip().rsplit("\n", 2)
        equation, _, words = block.partition("\n\n")
        assert equation == equations.latex(rule)
        assert inspect.cleandoc(rule.__doc__) in re.sub("^% ?", "", words, flags=re.MULTILINE)
        assert words.splitlines()[-len(rule.numbers) :] == [f"% {each}" for each in rule.numbers]
        assert rule.source in source
        assert rule.url in source
        program = lower(rule)
        assert f"moves {program.bytes_per_element(4)} bytes" in cost
        assert f"{program.operations} operations per element" in cost

    def test_prints_what_latex_can_read_as_a_whole(self, run: Run) -> None:
        behind = run("show", "adadelta").out.partition("\\end{aligned}\n")[2]
        assert all(line.startswith("%") for line in behind.splitlines() if line)

    @pytest.mark.parametrize(
        ("engine", "dtype"), [("cpu", "float32"), ("cpu", "float64"), *(("gpu", dtype) for dtype in gpu.TYPES)]
    )
    @pytest.mark.parametrize("rule", rules.ALL.values(), ids=lambda rule: rule.name)
    def test_prints_the_kernel_as_python(self, run: Run, rule: Any, engine: str, dtype: str) -> None:
        ended = run("show", rule.name, "--engine", engine, "--dtype", dtype)
        assert (ended.status, ended.err) == (0, "")
        assert any(isinstance(node, ast.FunctionDef) for node in ast.parse(ended.out).body)
        assert ended.out.startswith({"cpu": cpu, "gpu": gpu}[engine].source(lower(rule), dtype))
        assert f"a step in {dtype} moves {lower(rule).bytes_per_element(gpu.TYPES[dtype])} bytes" in ended.out

    @pytest.mark.parametrize(
        ("words", "form"),
        [
            (["--weight-decay", "coupled"], around.Around("coupled")),
            (["--weight-decay", "decoupled"], around.Around("decoupled")),
            (["--maximize"], around.Around(maximize=True)),
        ],
    )
    def test_prints_the_kernel_of_another_form(self, run: Run, words: list[str], form: around.Around) -> None:
        out = run("show", "adam", "--engine", "cpu", *words).out
        assert out.startswith(cpu.source(lower(rules.adam, form), "float32"))
        assert out != run("show", "adam", "--engine", "cpu").out

    @pytest.mark.parametrize("engine", ["", "cpu", "gpu"])
    def test_takes_a_users_rule(self, run: Run, engine: str) -> None:
        ended = run("show", f"{OWN_RULE}:yogi", "--engine", engine)
        assert (ended.status, ended.err) == (0, "")
        assert "Zaheer et al. 2018" in ended.out

    def test_stops_where_its_reader_stops(self) -> None:
        command = f"{sys.executable} -m steprule show adam --engine cpu | head -n 1"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert done.stdout.startswith('"""One float32 step of adam')
        assert done.stderr == ""

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["adamw"], f"there is no rule 'adamw'; allowed are {', '.join(rules.ALL)}, and your own as"),
            (["absent.py:rule"], "'absent.py:rule' names no object: there is no file absent.py"),
            (["json:dumps"], "json:dumps is of type function; allowed is a rule, a function under @rule"),
            (["adam", "--engine", "tpu"], "--engine is 'tpu'; allowed are cpu, gpu"),
            (["adam", "--dtype", "float16"], "--dtype is 'float16'; allowed are float32, float64"),
            (
                ["adam", "--engine", "gpu", "--dtype", "int8"],
                "--dtype is 'int8'; allowed are float64, float32, bfloat16, float16",
            ),
            (["adam", "--weight-decay", "l2"], "--weight-decay is 'l2'; allowed are none, coupled, decoupled"),
        ],
    )
    def test_tells_what_cannot_be(self, run: Run, words: list[str], says: str) -> None:
        assert one_sentence(run("show", *words)).startswith(says)


class TestData:
    def test_lists_each_data_set_with_its_licence_and_place(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("STEPRULE_CACHE", str(tmp_path))
        monkeypatch.delenv("STEPRULE_DATA", raising=False)
        ended = run("data")
        assert (ended.status, ended.err) == (0, "")
        said = " ".join(ended.out.split())
        for data in DATA_SETS.values():
            assert re.search(rf"^ +{data.name} ", ended.out, re.MULTILINE)
            assert data.licence in said
        assert "in scikit-learn" in said
        assert "not here yet; comes from" in said
        assert list(tmp_path.iterdir()) == []

    def test_keeps_a_path_in_one_piece(self, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        register_toy(monkeypatch)
        monkeypatch.setenv("STEPRULE_DATA", str(tmp_path / "a-folder-with-a-rather-long-name"))
        path = put_toy(tmp_path / "a-folder-with-a-rather-long-name", bytes(range(256)) * 400)
        assert str(path.parent) in run("data").out

    def test_tells_of_a_folder_that_is_none(self, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("STEPRULE_DATA", str(tmp_path / "absent"))
        assert "which is not a folder" in one_sentence(run("data"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What `steprule compare` asks of the library; nothing is run."""
    found: list[dict[str, Any]] = []

    def compared(problem: str, **arguments: Any) -> Comparison:
        found.append({"problem": problem} | arguments)
        return realistic()

    monkeypatch.setattr(steprule.lab.comparison, "compare", compared)
    monkeypatch.setattr(steprule.report.page, "write_report", lambda comparison, folder: folder / "index.html")
    return found


class TestCompare:
    def test_asks_for_the_usual(self, run: Run, asked: list[dict[str, Any]]) -> None:
        ended = run("compare")
        assert (ended.status, ended.err) == (0, "")
        (arguments,) = asked
        arguments.pop("progress")
        assert arguments.pop("on").jobs == machine.available_cores()
        assert arguments == {
            "problem": "digits",
            "rules": RULES,
            "epochs": None,
            "seeds": 5,
            "rates": RATES,
            "grid": {},
            "out": Path("compare"),
            "fresh": False,
        }

    def test_asks_for_what_it_is_told(self, run: Run, asked: list[dict[str, Any]]) -> None:
        words = "mnist --rules adadelta,own.py:lion --epochs 2 --seeds 3 --rates 1,0.1 --grid adadelta.rho=0.9,0.95 "
        words += "--grid adadelta.eps=1e-6 --grid lion.lr=1e-4 --jobs 4 --out there --fresh"
        assert run("compare", *words.split()).status == 0
        (arguments,) = asked
        arguments.pop("progress")
        assert arguments.pop("on").jobs == 4
        assert arguments == {
            "problem": "mnist",
            "rules": ["adadelta", "own.py:lion"],
            "epochs": 2,
            "seeds": 3,
            "rates": (1.0, 0.1),
            "grid": {"adadelta": {"rho": (0.9, 0.95), "eps": (1e-6,)}, "lion": {"lr": (1e-4,)}},
            "out": Path("there"),
            "fresh": True,
        }

    def test_prints_the_table_and_the_page_in_one_piece(self, run: Run, asked: list[dict[str, Any]]) -> None:
        folder = "a-folder-with-a-name-that-is-longer-than-a-line-of-a-terminal-of-eighty-columns/compare"
        out = run("compare", "--out", folder).out
        assert out.splitlines()[-1] == f"The page: {folder}/index.html"
        for rule in realistic().grids:
            assert rule in out

    def test_runs_and_goes_on_where_it_was(self, tmp_path: Path) -> None:
        words = ["compare", small.named(small.line), "--rules", "sgd", "--rates", "0.1,100", "--seeds", "2"]
        words += ["--epochs", "40", "--jobs", "1", "--out", "results"]
        first = process(*words, cwd=tmp_path)
        assert (first.status, first.err) == (0, "")
        assert first.out.startswith("line: 4 trials of 40 epochs in 1 process\n")
        assert "\x1b" not in first.out
        assert first.out.splitlines()[-1] == "The page: results/index.html"
        page = (tmp_path / "results" / "index.html").read_text(encoding="utf-8")
        text = " ".join(re.sub("<[^>]*>", "", page).split())
        assert f"steprule {' '.join(words)}" in text
        assert sorted({each.suffix for each in (tmp_path / "results" / "figures").iterdir()}) == [".png", ".svg"]

        again = process(*words, cwd=tmp_path)
        assert (again.status, again.err) == (0, "")
        assert again.out.startswith("line: 0 trials of 40 epochs in 1 process; 4 are finished already\n")
        # A run of more than ten seconds, as on a busy machine, says how far it is.
        table = re.sub(r"(?m)^\d+ of 160 epochs, .*\n", "", first.out.partition("\n")[2])
        assert again.out.partition("\n")[2] == table

    @pytest.mark.parametrize(
        ("words", "then"),
        [(["compare"], "goes on"), (["compare", "--fresh"], "without --fresh goes on"),
         (["cluster", "study", "--fresh"], "without --fresh goes on"),
         (["reproduce", "zeiler2012", "table1", "--fresh"], "without --fresh goes on")],
    )  # fmt: skip
    def test_says_how_to_go_on_after_an_interruption(
        self, run: Run, words: list[str], then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        for each in ("comparison.compare", "staleness.study", "zeiler2012.experiments.compare"):
            monkeypatch.setattr(f"steprule.lab.{each}", interrupted)
        ended = run(*words, "--out", str(tmp_path))
        assert (ended.status, ended.err) == (130, "")
        assert ended.out.endswith(f"is kept in {tmp_path}; the same command {then} from there.\n")

    def test_tells_of_a_full_disk_by_the_file(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", "figures/curves.svg")

        monkeypatch.setattr(steprule.lab.comparison, "compare", full)
        # The line that raised it follows, since it is not ours here.
        said = one_sentence(run("compare", "--out", str(tmp_path)))
        assert said.startswith("OSError: figures/curves.svg: No space left on device (")

    def test_tells_of_failed_trials(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(steprule.report.page, "write_report", lambda comparison, folder: folder / "index.html")
        words = ["--rules", "sgd", "--rates", "0.1", "--seeds", "2", "--jobs", "1", "--out", str(tmp_path)]
        ended = run("compare", small.named(small.failing), *words)
        assert (ended.status, ended.err) == (0, "")
        assert "failed: sgd(lr=0.1), seed 1: LookupError: there is no second epoch" in ended.out
        assert "1 trial failed" in ended.out

        ended = run("compare", small.named(small.always_failing), *words)
        assert (ended.status, ended.err) == (1, "")
        assert "2 trials failed" in ended.out

    def test_names_a_folder_as_it_is(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(steprule.report.page, "write_report", lambda comparison, folder: folder / "index.html")
        out = tmp_path / "run [lr=1] [" / "b]"  # in which rich would see a style, and the end of one
        words = ["--rules", "sgd", "--rates", "0.1", "--seeds", "1", "--jobs", "1", "--out", str(out)]
        ended = run("compare", small.named(small.line), *words)
        assert (ended.status, ended.err) == (0, "")
        assert ended.out.endswith(f"\nThe page: {out}/index.html\n")

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["cifar"], "there is no problem 'cifar'; allowed are digits, mnist, airfoil, speech, speech_logistic, "),
            (["absent.py:problem"], "'absent.py:problem' names no object: there is no file absent.py"),
            (["absent:problem"], "'absent:problem' names no object: there is no module absent"),
            (["json:absent"], "'json:absent' names no object: json has no absent"),
            ([f"{small.__file__}:no_function"], f"{small.__file__}:no_function is of type int; allowed is a function"),
            ([f"{small.__file__}:no_problem"], f"{small.__file__}:no_problem returned a int; allowed is a"),
            (["--rules", "adadelta,adamw"], "there is no rule 'adamw'"),
            (["--rules", "adadelta,"], "there is no rule ''"),
            (["--rules", "json:dumps"], "json:dumps is of type function; allowed is a rule"),
            (["--rules", "adam,adam"], "two of the rules have one name: adam, adam"),
            (["--epochs", "0"], "epochs is 0; allowed is a whole number from 1"),
            (["--seeds", "-1"], "seeds is -1; allowed is a whole number from 1"),
            (["--jobs", "0"], "jobs is 0; allowed is a whole number from 1"),
            (["--rates", "fast"], "'--rates' holds 'fast'; allowed are numbers with commas between them"),
            (["--rates", ""], "'--rates' holds ''; allowed are numbers with commas between them"),
            (["--rules", ""], "there is no rule ''; allowed are sgd, momentum, "),
            (["--rates", "1,1.0"], "'--rates' holds a number twice"),
            (["--rates", "-1"], "lr is -1.0; allowed is a number in [0, inf)"),
            (["--rates", "nan"], "lr is nan; allowed is a number in [0, inf)"),
            (["--grid", "rho=0.9"], "'rho=0.9' is no grid; allowed is rule.name=a,b,c"),
            (["--grid", "adadelta.rho=high"], "'adadelta.rho=high' holds 'high'; allowed are numbers"),
            (["--grid", "adadelta.rho=1.5"], "rho is 1.5; allowed is a number in [0, 1)"),
            (
                ["--grid", "adadelta.rate=1"],
                (
                    "adadelta has no hyperparameter 'rate'; it has: lr, rho, eps, weight_decay, lr_decay, "
                    "decoupled_weight_decay"
                ),
            ),
            (["--grid", "yogi.lr=1"], "the grid names the rule 'yogi'; the comparison has sgd"),
            (["--rules", "sgd", "--grid", "sgd.weight_decay=0.1"], "sgd needs values of lr, which has no default"),
        ],
    )
    def test_tells_what_cannot_be(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert one_sentence(run("compare", *words)).startswith(says)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["compare", "--epochs", "many"], "Error: Invalid value for '--epochs'"),
            (["compare", "--seeds", "1.5"], "Error: Invalid value for '--seeds'"),
            (["compare", "--colour", "red"], "Error: No such option: --colour"),
            (["compare", "digits", "mnist"], "Error: Got unexpected extra argument"),
            (["show"], "Error: Missing argument 'RULE'."),
            (["train"], "Error: No such command 'train'."),
        ],
    )
    def test_words_that_are_none_of_ours_get_the_usage_as_well(self, run: Run, words: list[str], says: str) -> None:
        ended = run(*words)
        assert (ended.status, ended.out) == (2, "")
        usage, *_, last = ended.err.splitlines()
        assert re.match(r"Usage: .*steprule .*\[OPTIONS\]", usage)
        assert last.startswith(says)
        assert "Traceback" not in ended.err

    def test_tells_of_data_that_are_not_there(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("STEPRULE_DATA", str(tmp_path / "absent"))
        assert "which is not a folder" in one_sentence(run("compare", "airfoil"))

    def test_tells_a_place_as_it_is(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "[bold]data" / DATA_SETS["airfoil"].files[0].path
        file.parent.mkdir(parents=True)
        file.touch()
        monkeypatch.setenv("STEPRULE_DATA", str(tmp_path / "[bold]data"))
        assert str(file.parent) in run("data").out

    def test_tells_of_damaged_data(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "airfoil").mkdir()
        (tmp_path / "airfoil" / "airfoil_self_noise.dat").write_text("800 0 0.3048\n", encoding="utf-8")
        monkeypatch.setenv("STEPRULE_DATA", str(tmp_path))
        said = one_sentence(run("compare", "airfoil"))
        assert "airfoil_self_noise.dat has the SHA-256" in said
        assert DATA_SETS["airfoil"].files[0].sha256 in said

    @pytest.mark.parametrize("place", ["out", "out/results.sqlite"])
    def test_tells_of_a_folder_that_cannot_be(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).write_text("not ours", encoding="utf-8")
        assert "out" in one_sentence(run("compare", small.named(small.line), "--out", "out"))
        assert Path(place).read_text(encoding="utf-8") == "not ours"

    def test_tells_of_a_problem_that_a_worker_cannot_make(self, run: Run, tmp_path: Path) -> None:
        ended = run("compare", small.named(small.unmakeable_elsewhere), "--jobs", "1", "--out", str(tmp_path))
        assert ended.status == 2
        assert re.fullmatch(r"steprule: the problem .* could not be made: .*there are no data here\n", ended.err)

    @pytest.mark.parametrize(
        "text",
        [
            "def problem(:\n",
            "problem = absent\n",
            "def problem(): return {}['absent']\n",
            "def problem(): return 1 + '1'\n",
        ],
    )
    def test_tells_of_a_mistake_in_the_users_file(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("mine.py").write_text(text, encoding="utf-8")
        said = one_sentence(run("compare", "mine.py:problem"))
        assert "mine.py" in said
        assert "Error" in said

    def test_a_warning_is_one_sentence_too(self, tmp_path: Path) -> None:
        text = "import warnings\nfrom tests.lab.small import line\nwarnings.warn('odd\\ndata')\n"
        (tmp_path / "mine.py").write_text(text, encoding="utf-8")
        words = ("mine.py:line", "--rules", "delta_bar_delta", "--seeds", "1", "--jobs", "1", "--epochs", "1")
        ended = process("compare", *words, cwd=tmp_path, PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path]))
        assert ended.err == (
            f"steprule: warning: odd data ({tmp_path}/mine.py, line 3)\n"
            "steprule: warning: delta_bar_delta needs the gradient of the full batch, and line has mini-batches of 8, whose "
            "noise makes its rates shrink\n"
        )

    def test_shows_the_traceback_and_the_warnings_own_text_to_who_asks(self, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text("import warnings\nwarnings.warn('odd\\ndata')\n", encoding="utf-8")
        ended = process("compare", "mine.py:absent", "--traceback", cwd=tmp_path)
        assert "mine.py:2: UserWarning: odd\ndata\n" in ended.err
        assert "Traceback (most recent call last)" in ended.err

    @pytest.mark.parametrize(
        ("absent", "words", "extra"),
        [("altair", ["compare", "digits"], "lab"), ("jax", ["bench", "--framework", "jax"], "jax")],
    )
    def test_tells_which_extra_is_missing(self, tmp_path: Path, absent: str, words: list[str], extra: str) -> None:
        program = f"import sys; sys.modules['{absent}'] = None; from steprule.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, text=True)
        assert f"pip install 'steprule[{extra}]'" in one_sentence(Ended(done.returncode, done.stdout, done.stderr))
        assert list(tmp_path.iterdir()) == []


class TestProgress:
    """What `steprule compare` shows while it runs."""

    TRIALS = tuple(Trial(Setting("sgd", {"lr": 0.1}), seed) for seed in range(3))

    def shown(self, *, watched: bool) -> tuple[Display, StringIO]:
        file = StringIO()
        return Display(Console(file=file, force_terminal=watched, width=100, color_system=None)), file

    def epoch(self, number: int, test: float) -> Epoch:
        return Epoch(number, 0.5, test, None, 0.1)

    def tell(self, display: Display, problem: Problem) -> None:
        """Two trials of two epochs: one finishes, one fails in its second epoch."""
        first, second, _ = self.TRIALS
        display.begin(problem, 2, 2, 1, 1)
        display.started(first)
        for number in (1, 2):
            display.measured(first, self.epoch(number, 8.0 - number))
        display.ended(Outcome(first, "finished", (self.epoch(1, 7.0), self.epoch(2, 6.0))))
        display.started(second)
        display.measured(second, self.epoch(1, 1.0))
        display.ended(Outcome(second, "failed", (self.epoch(1, 1.0),), "ValueError: [red] is no number"))

    def test_is_a_line_now_and_then_where_nobody_watches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(steprule.lab.display, "_SECONDS_BETWEEN_LINES", 0.0)
        display, file = self.shown(watched=False)
        with display:
            self.tell(display, small.line())
        first, *lines = file.getvalue().splitlines()
        assert first == "line: 2 trials of 2 epochs in 1 process; 1 is finished already"
        assert "\x1b" not in file.getvalue()
        assert [line.partition(",")[0] for line in lines if "epochs" in line] == [
            "1 of 4 epochs",
            "2 of 4 epochs",
            "2 of 4 epochs",
            "2 of 4 epochs",
            "3 of 4 epochs",
            "4 of 4 epochs",
        ]
        assert "failed: sgd(lr=0.1), seed 1: ValueError: [red] is no number" in lines

    def test_is_not_more_than_that(self) -> None:
        display, file = self.shown(watched=False)
        with display:
            self.tell(display, small.line())
        assert [line for line in file.getvalue().splitlines() if "epochs, about" in line] == []

    def test_is_redrawn_where_somebody_watches(self) -> None:
        display, file = self.shown(watched=True)
        with display:
            self.tell(display, small.line())
        said = file.getvalue()
        assert "4/4" in said
        # One trial was finished before, and may have been better.
        assert "best so far of those that were left: 6 by sgd(lr=0.1)" in said
        assert "[red] is no number" in said

    def test_an_infinite_score_is_not_the_best(self) -> None:
        display, file = self.shown(watched=True)
        problem = replace(small.line(), metric=Metric("PSNR", "dB", lower_is_better=False))
        with display:
            display.begin(problem, 2, 1, 0, 1)
            for trial, test in zip(self.TRIALS[:2], (math.inf, 9.0), strict=True):
                display.started(trial)
                display.ended(Outcome(trial, "finished", (self.epoch(1, test),)))
        assert "best so far: 9dB" in file.getvalue()
        assert "inf" not in file.getvalue()

    def test_of_many_that_run_only_some_are_named(self) -> None:
        display, file = self.shown(watched=True)
        with display:
            display.begin(small.line(), 300, 1, 0, 1)
            for seed in range(300):
                display.started(Trial(Setting("sgd", {"lr": 0.1}), seed))
        *_, last = file.getvalue().rpartition("seed 0: starting")
        assert "seed 15: starting" in last
        assert "seed 16: starting" not in last
        assert "and 284 more" in last

    def test_the_best_is_the_highest_where_more_is_better(self) -> None:
        display, file = self.shown(watched=True)
        problem = replace(small.line(), metric=Metric("accuracy", "%", lower_is_better=False))
        with display:
            display.begin(problem, 3, 1, 0, 1)
            for trial, test in zip(self.TRIALS, (60.0, 90.0, 75.0), strict=True):
                display.started(trial)
                display.measured(trial, self.epoch(1, test))
                display.ended(Outcome(trial, "finished", (self.epoch(1, test),)))
        assert "best so far: 90% by sgd(lr=0.1)" in file.getvalue()
        assert file.getvalue().rindex("best so far: 90%") == file.getvalue().rindex("best so far:")

    def test_counts_one_as_one(self) -> None:
        display, file = self.shown(watched=False)
        with display:
            display.begin(small.line(), 1, 1, 1, 1)
        assert file.getvalue() == "line: 1 trial of 1 epoch in 1 process; 1 is finished already\n"

    def test_a_problems_name_may_have_brackets(self) -> None:
        display, file = self.shown(watched=False)
        with display:
            display.begin(replace(small.line(), name="line [bold]"), 2, 2, 0, 2)
        assert file.getvalue().startswith("line [bold]: 2 trials")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that take no time."""
    for name in bench_steps.SIZES:
        monkeypatch.setitem(bench_steps.SIZES, name, [(3, 4), (5,)])  # type: ignore[arg-type]  # it is a dict
    monkeypatch.setattr(bench_steps, "REPEATS", ((1_000, 2, 3),))
    for name, value in {"ROWS": 20, "WIDTH": 3, "TOUCHED": 4, "_REPEATS": (2, 3)}.items():
        monkeypatch.setattr(bench_sparse, name, value)
    monkeypatch.setattr(steprule.bench, "measure_first_step", lambda: {"cold": Times((2.0,)), "cached": Times((0.5,))})
    monkeypatch.setattr(
        steprule.bench,
        "measure_epoch",
        lambda: {"steprule": Times((1.5,)), "usual loop": Times((3.0,)), "products": Times((1.0,))},
    )


@pytest.mark.usefixtures("tiny")
class TestBench:
    def test_prints_its_tables_and_writes_every_repetition(self, run: Run, tmp_path: Path) -> None:
        ended = run("bench", "--no-compile", "--json", str(tmp_path / "made.json"))
        assert ended.status == 0
        for words in (
            "One step, ms",
            "Ratios of the medians",
            "One step by a sparse gradient, 4 of 20 rows of 3",
            "First step of a process",
            "One epoch of the paper's MNIST",
        ):
            assert words in ended.out
        written = json.loads((tmp_path / "made.json").read_text(encoding="utf-8"))
        assert set(written) == {"made", "steps", "sparse", "first_step", "epoch"}
        assert [(each["rule"], each["size"]) for each in written["steps"]] == [
            (rule, size) for size in ("mnist", "small", "large", "transformer") for rule in ("adadelta", "adam")
        ]
        assert {len(seconds) for each in written["steps"] for seconds in each["seconds"].values()} == {6}
        assert [each["rule"] for each in written["sparse"]] == ["adagrad", "adadelta", "adam"]
        assert {len(seconds) for each in written["sparse"] for seconds in each["seconds"].values()} == {6}
        assert written["first_step"] == {"cold": [2.0], "cached": [0.5]}
        assert written["epoch"]["usual loop"] == [3.0]
        assert [each.name for each in tmp_path.iterdir()] == ["made.json"]

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("one epoch could not be measured")])
    def test_what_is_measured_is_kept_where_it_ends_early(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException
    ) -> None:
        def ends() -> None:
            raise error

        monkeypatch.setattr(steprule.bench, "measure_epoch", ends)
        file = tmp_path / "made.json"
        ended = run("bench", "--sizes", "small", "--no-compile", "--json", str(file))
        if isinstance(error, KeyboardInterrupt):
            told = f"Stopped. What is finished is kept in {file}; the same command measures all anew.\n"
            assert (ended.status, ended.out) == (130, told)
        else:
            assert ended.status == 2
            assert "one epoch could not be measured" in ended.err
        written = json.loads(file.read_text(encoding="utf-8"))
        assert [(each["rule"], each["size"]) for each in written["steps"]] == [("adadelta", "small"), ("adam", "small")]
        assert written["first_step"] == {"cold": [2.0], "cached": [0.5]}
        assert (written["epoch"], written["sparse"]) == ({}, [])

    def test_measures_what_it_is_told_and_no_more(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in ("measure_first_step", "measure_epoch", "measure_sparse"):
            monkeypatch.setattr(steprule.bench, name, lambda *_: pytest.fail("it was not asked for"))
        words = ["--sizes", "small", "--rules", "sgd,adagrad", "--no-compile", "--no-first-step"]
        words += ["--no-epoch", "--no-sparse"]
        ended = run("bench", *words, "--json", str(tmp_path / "made.json"))
        assert ended.status == 0
        written = json.loads((tmp_path / "made.json").read_text(encoding="utf-8"))
        assert [(each["rule"], each["size"]) for each in written["steps"]] == [("sgd", "small"), ("adagrad", "small")]
        assert (written["first_step"], written["epoch"], written["sparse"]) == ({}, {}, [])

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["--sizes", "huge"], "--sizes is 'huge'; allowed are mnist, small, large, transformer"),
            (["--device", "tpu"], "--device is 'tpu'; allowed are cpu, cuda"),
            (["--sizes", "mnist,"], "--sizes is ''; allowed are mnist, small, large, transformer"),
            (["--sizes", ""], "--sizes is ''; allowed are mnist, small, large, transformer"),
            (["--framework", "jax", "--sizes", ""], "--sizes is ''; allowed are mnist, small, large"),
            (["--rules", "rmsprop"], "--rules is 'rmsprop'; allowed are sgd, adagrad, adadelta, adam"),
            (["--rules", "adam, rmsprop"], "--rules is 'rmsprop'; allowed are sgd, adagrad, adadelta, adam"),
            (["--framework", "jax", "--device", "cuda"], "--device with --framework jax is 'cuda'; allowed are cpu"),
        ],
    )
    def test_tells_what_cannot_be(self, run: Run, words: list[str], says: str) -> None:
        assert one_sentence(run("bench", *words)) == says

    def test_tells_where_there_is_no_gpu(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        says = f"--device is 'cuda', and PyTorch {torch.__version__} finds no GPU here; allowed is cpu"
        assert one_sentence(run("bench", "--device", "cuda")) == says

    def test_measures_the_steps_alone_on_a_gpu(self, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        measured = steprule.bench.measure_steps_on_gpu
        monkeypatch.setattr(steprule.bench, "require_gpu", lambda: None)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"some {device}")
        monkeypatch.setattr(
            steprule.bench,
            "measure_steps_on_gpu",
            lambda *words, compiled: measured(*words, compiled=compiled, device="cpu"),
        )
        for name in ("measure_steps", "measure_first_step", "measure_epoch"):
            monkeypatch.setattr(steprule.bench, name, lambda: pytest.fail("it is of the CPU"))
        words = ["--device", "cuda", "--sizes", "mnist", "--rules", "adam", "--no-compile"]
        assert run("bench", *words, "--json", str(tmp_path / "made.json")).status == 0
        written = json.loads((tmp_path / "made.json").read_text(encoding="utf-8"))
        assert written["made"]["device"] == "some cuda"
        assert [(each["rule"], each["size"]) for each in written["steps"]] == [("adam", "mnist")]

    def test_tells_of_a_file_that_cannot_be_written_before_it_measures(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(steprule.bench, "measure_steps", lambda *_, **__: pytest.fail("it measures"))
        assert "absent" in one_sentence(run("bench", "--json", str(tmp_path / "absent" / "made.json")))
        assert "no file" in one_sentence(run("bench", "--json", str(tmp_path)))
        os.mkfifo(tmp_path / "pipe")
        assert "no file" in one_sentence(run("bench", "--json", str(tmp_path / "pipe")))
        assert (tmp_path / "pipe").is_fifo()
        monkeypatch.setattr(os, "access", lambda folder, _: folder != tmp_path)
        assert "cannot be written" in one_sentence(run("bench", "--json", str(tmp_path / "made.json")))


def test_the_installed_command_is_this_one() -> None:
    (command,) = [each for each in Path(sys.executable).parent.glob("steprule*") if each.stem == "steprule"]
    done = subprocess.run([command, "show", "sgd"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\Delta x_t &= -\eta \, g_t" in done.stdout


class TestCluster:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["run", "digits", "--replicas", "0"], "replicas is 0; allowed is a whole number from 1"),
            (["run", "digits", "--updates", "5", "--epochs", "1"], "--updates is 5 and --epochs is 1; allowed is one"),
            (["run", "digits", "--epochs", "-1"], "epochs is -1.0; allowed is a finite number above 0"),
            (["run", "digits", "--epochs", "nan"], "epochs is nan; allowed is a finite number above 0"),
            (["run", "digits", "--sync"], "sync is True and journal is False; allowed is sync with a journal"),
            (["simulate", "digits", "--replicas", "0"], "replicas is 0; allowed is a whole number from 1"),
            (["study", "--replicas", "1,x"], "--replicas is '1,x'; allowed are whole numbers with commas between them"),
            (["study", "--rules", ""], "there is no rule ''; allowed are sgd, momentum, "),
        ],
    )
    def test_tells_what_cannot_be_in_one_sentence(self, run: Run, words: list[str], message: str) -> None:
        assert one_sentence(run("cluster", *words)).startswith(message)


@pytest.mark.parametrize(
    "words",
    [
        ("compare", "digits", "--rules", "sgd"),
        ("cluster", "simulate", "digits", "--replicas", "2"),
        ("cluster", "run", "digits"),
        ("reproduce", "zeiler2012", "--published"),
    ],
)
def test_tells_of_a_folder_that_cannot_be_made_before_it_trains(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr("steprule.cluster.Simulation.run", lambda _: pytest.fail("it trains"))
    file = tmp_path / "file"
    file.touch()
    assert one_sentence(run(*words, "--out", str(file))) == f"out is {file}, where no folder can be made: File exists"
