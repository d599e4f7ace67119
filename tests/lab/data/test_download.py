"""Downloads, from a server on this machine: whole, from the next mirror, or not at all."""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from tests.lab.data.toy import CONTENT, Server, files_under, register_toy
from tests.lab.processes import PATIENCE, soon
from tests.requirements import interrupts_heeded, require_installed, require_release

from steprule.lab.data import DataError, locate

pytestmark = pytest.mark.usefixtures("folders")


def test_a_download_lands_in_the_cache_once(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_toy(monkeypatch, f"{server.address}/toy")
    server.bodies["/toy"] = CONTENT
    path = tmp_path / "cache" / "data" / "toy" / "toy.bin"
    assert locate("toy") == {"toy.bin": path}
    assert path.read_bytes() == CONTENT
    assert locate("toy") == {"toy.bin": path}
    assert server.asked == ["/toy"]
    assert files_under(tmp_path) == ["cache/data/toy/toy.bin"]


def test_a_gzip_file_arrives_packed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    content = gzip.compress(CONTENT)
    register_toy(monkeypatch, f"{server.address}/toy", content=content)
    server.bodies["/toy"] = content
    assert locate("toy")["toy.bin"].read_bytes() == content


@pytest.mark.parametrize("fault", ["absent", "wrong", "truncated"])
def test_the_next_mirror_is_tried(fault: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_toy(monkeypatch, f"{server.address}/first", f"{server.address}/second")
    server.bodies["/second"] = CONTENT
    if fault != "absent":
        server.bodies["/first"] = CONTENT[:1000]
    if fault == "truncated":
        server.lengths["/first"] = len(CONTENT)
    assert locate("toy")["toy.bin"].read_bytes() == CONTENT
    assert server.asked == ["/first", "/second"]
    assert files_under(tmp_path) == ["cache/data/toy/toy.bin"]


def test_a_download_with_a_wrong_checksum_is_not_kept(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = register_toy(monkeypatch, f"{server.address}/toy")
    server.bodies["/toy"] = b"another"
    with pytest.raises(DataError) as caught:
        locate("toy")
    for part in (file.path, file.urls[0], file.sha256, hashlib.sha256(b"another").hexdigest()):
        assert part in str(caught.value)
    assert files_under(tmp_path) == []


def test_a_transfer_that_breaks_off_leaves_nothing_and_can_be_repeated(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_release("urllib3", "2", "a transfer that breaks off ends as if it were complete")
    register_toy(monkeypatch, f"{server.address}/toy")
    server.bodies["/toy"], server.lengths["/toy"] = CONTENT[:70_000], len(CONTENT)
    with pytest.raises(DataError, match=r"70000 bytes read, 32400 more expected"):
        locate("toy")
    assert files_under(tmp_path) == []
    server.bodies["/toy"] = CONTENT
    assert locate("toy")["toy.bin"].read_bytes() == CONTENT


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and SIGINT are POSIX signals")
@pytest.mark.parametrize("end", ["SIGKILL", "SIGINT"])
def test_a_process_that_is_stopped_leaves_no_file_that_is_taken_for_good(
    end: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = register_toy(monkeypatch, f"{server.address}/toy")
    server.bodies["/toy"], server.lengths["/toy"] = CONTENT[:70_000], len(CONTENT)
    server.held["/toy"] = threading.Event()
    program = f"""
        from steprule.lab.data import DATA_SETS, DataFile, DataSet, locate
        DATA_SETS["toy"] = DataSet("toy", "A toy", "CC0", "made here", ({file!r},))
        locate("toy")
    """
    folder = tmp_path / "cache" / "data" / "toy"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with interrupts_heeded():
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    with process:
        soon(lambda: any(path.stat().st_size for path in folder.glob("*")))
        process.send_signal(getattr(signal, end))
        process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    left = [path.name for path in folder.iterdir()]
    assert "toy.bin" not in left
    assert end == "SIGKILL" or left == []

    del server.held["/toy"]
    server.bodies["/toy"] = CONTENT
    assert locate("toy")["toy.bin"].read_bytes() == CONTENT


def test_without_a_network_the_error_says_what_to_do(
    server: Server, unused_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_toy(monkeypatch, f"{unused_address}/toy", f"{server.address}/toy")
    with pytest.raises(DataError) as caught:
        locate("toy")
    message = str(caught.value)
    assert message.startswith("toy/toy.bin could not be downloaded from ")
    assert f"{unused_address}/toy (" in message and "refused" in message
    assert f"{server.address}/toy (HTTP 404 Not Found)" in message
    assert "$STEPRULE_DATA" in message
    assert files_under(tmp_path) == []


def test_the_cause_is_the_download_s_own(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    register_toy(monkeypatch, f"{server.address}/toy")
    server.bodies["/toy"] = b"another"
    with pytest.raises(DataError, match="does not match the known hash") as caught:
        try:
            raise KeyError("the caller's own trouble")
        except KeyError:
            locate("toy")
    assert "own trouble" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_an_error(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_toy(monkeypatch, f"{server.address}/toy", f"{server.address}/toy")
    server.bodies["/toy"] = CONTENT
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    with pytest.raises(DataError, match=r"cannot be written .*\$STEPRULE_CACHE"):
        locate("toy")
    assert len(server.asked) <= 1


@pytest.mark.parametrize(("terminal", "drawn"), [("xterm", True), ("dumb", False)])
def test_progress_is_drawn_on_a_terminal(
    terminal: str, drawn: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_installed("rich")
    require_release("rich", "14.3", "a bar that is not shown leaves an empty line")
    from steprule.lab.data.progress import progress_bar

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", terminal)
    with progress_bar("toy.bin", 2000) as bar:
        assert capsys.readouterr().err == ""
        bar.update(1500)
        bar.reset()
        bar.update(2000)
        bar.close()
    told = capsys.readouterr()
    assert ("toy.bin" in told.err and "2.0/2.0 kB" in told.err) == drawn
    assert drawn or told.err == ""
    assert told.out == ""


@pytest.mark.parametrize("absent", ["pooch", "rich.console"])
def test_a_missing_downloader_is_told(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_installed("pooch", "rich")
    register_toy(monkeypatch, "http://127.0.0.1/toy")
    monkeypatch.delitem(sys.modules, "steprule.lab.data.progress", raising=False)
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs {absent.partition('.')[0]}: pip install 'steprule\[lab\]'"):
        locate("toy")
