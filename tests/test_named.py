"""Objects by their names: found, not found, and found again from another process."""

from __future__ import annotations

import ast
import functools
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from steprule import named, rules
from steprule.lab.problems.digits import digits

USERS = """
from steprule import rule

from neighbour import FACTOR


def function():
    return FACTOR


@rule
def double(g, *, lr: float = 0.1):
    return -2 * lr * g


class Holder:
    @staticmethod
    def inner():
        return 2


def _plain(g, *, lr: float = 0.1):
    return -lr * g


renamed = rule(_plain)


def made(factor):
    @rule
    def scaled(g, *, lr: float = 0.1):
        return -factor * lr * g

    return scaled


tripled = made(3)


def lazy():
    import late

    return late.VALUE


"""


@pytest.fixture(autouse=True)
def modules_are_put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in list(sys.modules):
        if name.startswith("steprule_user_") or name in ("neighbour", "late", "beside"):
            del sys.modules[name]


@pytest.fixture
def users(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("FACTOR = 5\n", encoding="utf-8")
    (tmp_path / "late.py").write_text("VALUE = 7\n", encoding="utf-8")
    file = tmp_path / "users.py"
    file.write_text(USERS, encoding="utf-8")
    return file


def test_a_file_s_function_is_found_with_its_neighbours(users: Path) -> None:
    assert named.load(f"{users}:function")() == 5


def test_a_relative_path_is_the_same_module(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(users.parent)
    assert named.load("users.py:function") is named.load(f"{users}:function")
    assert named.load("./users.py:function") is named.load(f"{users}:function")


def test_a_module_s_function_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert named.load("steprule.lab.problems.digits:digits") is digits
    (tmp_path / "beside.py").write_text("def function(): return 3\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert named.load("beside:function")() == 3


def test_a_name_may_lead_into_a_class(users: Path) -> None:
    assert named.load(f"{users}:Holder.inner")() == 2


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("adadelta", "'adadelta' names no object; allowed are package.module:name and path/to/file.py:name"),
        (":name", "':name' names no object; allowed are package.module:name and path/to/file.py:name"),
        ("json:", "'json:' names no object; allowed are package.module:name and path/to/file.py:name"),
        ("absent.py:name", "'absent.py:name' names no object: there is no file absent.py"),
        ("absent:name", "'absent:name' names no object: there is no module absent"),
        ("json.absent:name", "'json.absent:name' names no object: there is no module json.absent"),
        ("json:absent", "'json:absent' names no object: json has no absent"),
        ("json:dumps.absent", "'json:dumps.absent' names no object: json has no dumps.absent"),
    ],
)
def test_what_is_not_there_is_told(name: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        named.load(name)
    assert str(caught.value) == says


def test_a_relative_module_is_told() -> None:
    with pytest.raises(ValueError, match="names no object"):
        named.load(".module:name")


def test_a_missing_import_of_a_users_file_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text("import not_installed_anywhere\n", encoding="utf-8")
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        named.load(f"{tmp_path / 'needy.py'}:name")


def test_a_file_that_failed_is_loaded_again_when_mended(tmp_path: Path) -> None:
    file = tmp_path / "mended.py"
    file.write_text("raise RuntimeError('not yet')\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="not yet"):
        named.load(f"{file}:value")
    file.write_text("value = 'mended now'\n", encoding="utf-8")
    assert named.load(f"{file}:value") == "mended now"


def test_a_neighbour_can_be_imported_when_the_function_runs(users: Path) -> None:
    assert named.load(f"{users}:lazy")() == 7


FOUND_AGAIN = "import sys\nfrom steprule import named\nprint(repr(named.load(sys.argv[1])))\n"


def _from_elsewhere(name: str, folder: Path) -> str:
    """What another process, started in another folder, finds under `name`."""
    command = [sys.executable, "-c", FOUND_AGAIN, name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def test_another_process_finds_a_users_rule_by_its_name(
    users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(users.parent)
    name = named.name_of(named.load("users.py:double"))
    assert name == f"{users}:double"
    (tmp_path / "elsewhere").mkdir()
    assert _from_elsewhere(name, tmp_path / "elsewhere") == "<rule double>\n"


def test_what_a_module_defines_is_named_after_it() -> None:
    assert named.name_of(digits) == "steprule.lab.problems.digits:digits"
    assert named.name_of(rules.adadelta) == "steprule.rules.adadelta:adadelta"
    assert named.load(named.name_of(rules.adadelta)) is rules.adadelta


def test_what_the_main_script_defines_is_named_after_its_file(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from steprule import named\ndef mine(): ...\nprint(named.name_of(mine))\n", encoding="utf-8")
    done = subprocess.run([sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{script}:mine\n"


@pytest.mark.parametrize(
    "given",
    ["-c", "-"],
)
def test_what_has_no_file_is_told(given: str) -> None:
    program = (
        "from steprule import named\n"
        "def mine(): ...\n"
        "try: print(named.name_of(mine), named.digest(mine))\n"
        "except ValueError as error: print('told', error)\n"
    )
    arguments = ["-"] if given == "-" else ["-c", program]
    done = subprocess.run([sys.executable, *arguments], input=program, capture_output=True, text=True)
    assert done.stdout.startswith("told") and done.returncode == 0


def test_a_local_function_has_no_name() -> None:
    def local() -> None: ...

    with pytest.raises(ValueError, match=r"local to a function; another process can find only what a module defines"):
        named.name_of(local)


def test_a_partial_function_has_no_name(users: Path) -> None:
    with pytest.raises((ValueError, TypeError), match="another process"):
        named.name_of(functools.partial(named.load(f"{users}:function")))


def test_the_name_of_a_rule_under_another_name_is_its_own_or_none(users: Path) -> None:
    renamed = named.load(f"{users}:renamed")
    try:
        name = named.name_of(renamed)
    except ValueError:
        return
    assert named.load(name) is renamed


def test_the_digest_changes_with_the_text_of_the_file(users: Path) -> None:
    first = named.digest(named.load(f"{users}:function"))
    assert first == named.digest(named.load(f"{users}:Holder.inner"))
    users.write_text(USERS + "# more\n", encoding="utf-8")
    assert named.digest(named.load(f"{users}:function")) != first
    users.write_text(USERS, encoding="utf-8")
    assert named.digest(named.load(f"{users}:function")) == first


@pytest.mark.parametrize(
    "file", ["neighbour.py", "late.py", "package/__init__.py", "package/part.py", "package/other.py"]
)
def test_the_digest_changes_with_what_lies_beside_the_file_and_is_imported(users: Path, file: str) -> None:
    package = users.with_name("package")
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "part.py").write_text("from . import other\nfrom .other import A\n", encoding="utf-8")
    (package / "other.py").write_text("import part\nA = 1\n", encoding="utf-8")
    users.with_name("unused.py").write_text("A = 1\n", encoding="utf-8")
    users.write_text(f"{USERS}\n\ndef runs():\n    import late\n    import package.part\n", encoding="utf-8")
    function = named.load(f"{users}:function")
    first = named.digest(function)
    users.with_name("unused.py").write_text("A = 2\n", encoding="utf-8")
    assert named.digest(function) == first
    changed = users.parent / file
    changed.write_text(changed.read_text(encoding="utf-8") + "# more\n", encoding="utf-8")
    assert named.digest(function) != first


def test_the_digest_of_what_is_installed_is_of_its_own_file() -> None:
    own = Path(str(sys.modules[digits.__module__].__file__)).read_bytes()
    assert named.digest(digits) == hashlib.sha256(own).hexdigest()[:12]


def test_what_is_installed_is_told_from_the_users(users: Path) -> None:
    assert named.is_installed(Path(np.__file__).parent / "linalg" / "__init__.py")
    assert named.is_installed(Path(ast.__file__))
    assert named.is_installed(Path(named.__file__))
    assert not named.is_installed(users)


def test_the_digest_is_of_the_file_that_names_a_partial_function_too(users: Path) -> None:
    text = USERS + "import functools\n\npart = functools.partial(function)\n"
    users.write_text(text, encoding="utf-8")
    name = f"{users}:part"
    first = named.digest(named.load(name), name)
    assert first != named.digest(named.load(name))
    users.write_text(text + "# more\n", encoding="utf-8")
    assert named.digest(named.load(name), name) != first
