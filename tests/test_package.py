"""The package as its users get it: the wheel, what is in it, and that it runs where nothing else of ours is."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import steprule
from tests.requirements import require_installed

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
# What is no module: the marker of types, and the report's page.
_PAGES = (
    "page",
    "sheet",
    "macros",
    "d2l",
    "zeiler2012",
    "zeiler2012-search",
    "zeiler2012-speech",
    "speech",
    "staleness",
)
OTHER = {
    "steprule/py.typed",
    *(f"steprule/report/{name}.html.jinja" for name in _PAGES),
    *(f"steprule/report/page.{kind}" for kind in ("css", "js")),
    *(f"steprule/lab/{name}/expected.toml" for name in ("d2l", "zeiler2012")),
    *(f"steprule/lab/zeiler2012/{name}" for name in ("protocol.toml", "results.json", "speech.toml")),
}


def python(executable: Path, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python, or another program, knowing nothing of where this project lies."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "STEPRULE_", "VIRTUAL_"))
    }
    return subprocess.run([executable, *words], cwd=cwd, env=kept | environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_installed("build", "hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    # A copy, so that what others do in the tree meanwhile does not matter.
    for name in ("src", "pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        part = ROOT / name
        if part.is_dir():
            shutil.copytree(part, folder / "tree" / name)
        else:
            shutil.copy(part, folder / "tree" / name)
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(folder / "tree")]
    done = python(Path(sys.executable), *command, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (folder / "dist").iterdir()
    return made


def named_in_the_readme() -> list[str]:
    """The files of the project that the README names."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\((?!https?://)([^)#]+)\)", text)
    return linked + re.findall(r"\b(?:examples|docs|benchmarks)/[\w./-]+\w", text)


@pytest.mark.serial
def test_the_source_distribution_has_what_the_readme_and_its_commands_need(tmp_path: Path) -> None:
    require_installed("build", "hatchling")
    command = ["-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = python(Path(sys.executable), *command, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(tmp_path / f"steprule-{steprule.__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    places = names | {parent.as_posix() for name in names for parent in Path(name).parents}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    needed = {"Makefile", "pyproject.toml", *re.findall(r"\bconstraints[\w-]*\.txt", makefile)}
    assert {name.rstrip("/") for name in named_in_the_readme()} | needed <= places


def installed(wheel: Path, folder: Path) -> Path:
    """Make a new environment with the wheel and nothing else in it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    words = ["-m", "pip", "--python", str(folder / "bin" / "python"), "--disable-pip-version-check", "install"]
    done = python(Path(sys.executable), *words, "--no-deps", "--no-index", str(wheel), cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(wheel, tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, and what this environment has but for our own package, which is installed to be edited."""
    folder = installed(wheel, tmp_path_factory.mktemp("full"))
    (own,) = folder.glob("lib/python*/site-packages")
    # Python reads no .pth file in a folder that a .pth file names, so that the way to our source is not taken.
    (own / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder


@pytest.mark.serial
class TestTheWheel:
    def test_is_of_pure_python(self, wheel: Path) -> None:
        assert wheel.name == f"steprule-{steprule.__version__}-py3-none-any.whl"

    def test_holds_every_file_of_the_source_and_nothing_else(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            names = {name for name in archive.namelist() if ".dist-info/" not in name}
        modules = {path.relative_to(SOURCE).as_posix() for path in (SOURCE / "steprule").rglob("*.py")}
        assert names == modules | OTHER

    def test_says_what_it_is_and_what_it_needs(self, wheel: Path) -> None:
        about = f"steprule-{steprule.__version__}.dist-info"
        with zipfile.ZipFile(wheel) as archive:
            metadata = email.message_from_bytes(archive.read(f"{about}/METADATA"))
            entries = archive.read(f"{about}/entry_points.txt").decode()
            assert archive.read(f"{about}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert metadata["Version"] == steprule.__version__
        assert f"\nversion: {steprule.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
        assert metadata["License-Expression"] == "Apache-2.0"
        needs = metadata.get_all("Requires-Dist") or []
        core = {re.split(r"[^\w-]", need)[0] for need in needs if "extra ==" not in need}
        assert core == {"numpy", "numba", "platformdirs"}
        assert {"torch", "jax", "keras", "lab", "cluster"} <= set(metadata.get_all("Provides-Extra") or [])
        assert entries.split() == ["[console_scripts]", "steprule", "=", "steprule.__main__:main"]


EMPTY = """
import sys
import steprule
print(steprule.__file__)
print(steprule.rules.sgd(2.0, lr=0.5))
print([name for name in ("numpy", "numba", "torch") if name in sys.modules])
"""

STEP = """
import torch
import steprule.torch
print(steprule.__file__)
weight = torch.ones(3, requires_grad=True)
optimizer = steprule.torch.Adadelta([weight])
weight.sum().backward()
optimizer.step()
print((weight < 1).all().item())
"""


@pytest.mark.serial
class TestInstalled:
    def test_it_is_imported_without_any_other_package(self, bare: Path, tmp_path: Path) -> None:
        done = python(bare / "bin" / "python", "-W", "error", "-c", EMPTY, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        place, step, loaded = done.stdout.splitlines()
        assert Path(place).is_relative_to(bare)
        assert (step, loaded) == ("-1.0", "[]")

    def test_its_command_says_what_to_install(self, bare: Path, tmp_path: Path) -> None:
        done = python(bare / "bin" / "steprule", "show", "adadelta", cwd=tmp_path)
        assert done.returncode == 2
        assert re.fullmatch(r"steprule: [^\n]*pip install 'steprule\[lab\]'\n", done.stderr)

    @pytest.mark.parametrize(
        ("module", "extra"),
        [("torch", "torch"), ("curvature", "torch"), ("jax", "jax"), ("keras", "keras"), ("cluster", "cluster")],
    )
    def test_its_parts_say_what_to_install(self, bare: Path, tmp_path: Path, module: str, extra: str) -> None:
        done = python(bare / "bin" / "python", "-c", f"import steprule.{module}", cwd=tmp_path)
        assert re.search(rf" needs \w+: pip install 'steprule\[{extra}\]'", done.stderr.splitlines()[-1])

    def test_it_steps(self, environment: Path, tmp_path: Path) -> None:
        python_there, cache = environment / "bin" / "python", str(tmp_path / "cache")
        done = python(python_there, "-W", "error", "-c", STEP, cwd=tmp_path, STEPRULE_CACHE=cache)
        assert done.returncode == 0, done.stderr
        place, fell = done.stdout.splitlines()
        assert Path(place).is_relative_to(environment)
        assert fell == "True"

    def test_its_command_shows_a_rule(self, environment: Path, tmp_path: Path) -> None:
        done = python(environment / "bin" / "steprule", "show", "adadelta", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("\\begin{aligned}\n")
        assert list(tmp_path.iterdir()) == []

    def test_its_command_compares_and_writes_the_page(self, environment: Path, tmp_path: Path) -> None:
        words = "compare digits --rules sgd --rates 0.1 --seeds 1 --epochs 1 --jobs 1".split()  # noqa: SIM905
        cache = str(tmp_path / "cache")
        done = python(environment / "bin" / "steprule", *words, cwd=tmp_path, STEPRULE_CACHE=cache)
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "compare" / "index.html").exists()


def blocks(file: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


class TestTheReadme:
    def test_has_examples_of_python(self) -> None:
        assert blocks(ROOT / "README.md")

    @pytest.mark.parametrize("number", range(len(blocks(ROOT / "README.md"))))
    def test_its_examples_run_as_they_stand(self, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        text = blocks(ROOT / "README.md")[number]
        require_installed(*re.findall(r"^import steprule\.(jax|torch)$", text, re.MULTILINE))
        code = compile(text, f"README.md, example {number + 1}", "exec")
        exec(code, {"__name__": f"readme_{number}"})

    def test_every_file_that_it_names_is_there(self) -> None:
        assert [name for name in named_in_the_readme() if not (ROOT / name).exists()] == []

    def test_nothing_in_it_is_still_to_be_written(self) -> None:
        assert re.findall(r"^[A-Z_]{4,}$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE) == []
