"""What cannot be printed changes neither the work nor its exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.runs import QUICK
from tutorial_lib.cli import program as cli

pytestmark = [pytest.mark.plain_errors, pytest.mark.usefixtures("empty_folder")]
PROGRAM = [sys.executable, "-m", "tutorial_lib"]


def closed_pipe() -> int:
    """The end to write to of a pipe that nobody reads."""
    reads, writes = os.pipe()
    os.close(reads)
    return writes


def with_stdout(stdout: int, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_help_that_nobody_reads_to_its_end_is_no_error(words: list[str]) -> None:
    done = with_stdout(closed_pipe(), *words)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is full")
def test_a_finished_run_whose_report_cannot_be_written_has_finished(trained: Path) -> None:
    with open("/dev/full", "wb") as full:
        words = ["sample", str(trained), "--count", "1", "--steps", "1"]
        done = with_stdout(full.fileno(), *words)
    assert done.returncode == 0
    reason = "not all could be printed to the standard output: No space left on device"
    assert done.stderr == f"warning: {reason}\n"
    assert Path("samples.png").exists()


def test_letters_that_stdout_does_not_know_are_spelled_out() -> None:
    words = ["train", *QUICK, "--size", "8", "--out", "läufe-\N{SNOWMAN}"]
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [*PROGRAM, *words], capture_output=True, check=True, env={**os.environ, **environment}
    )
    assert b"checkpoint: l\\xe4ufe-\\u2603" in done.stdout
    assert done.stderr == b""
    assert Path("läufe-\N{SNOWMAN}").is_dir()


def test_an_error_that_nobody_can_read_keeps_its_exit_code() -> None:
    done = subprocess.run(
        [*PROGRAM, "sample", "--count", "0"], stdout=closed_pipe(), stderr=closed_pipe()
    )
    assert done.returncode == 2


class Broken:
    """A stream that fails, as one that its reader has closed."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [Broken(), None])
def test_also_where_it_is_called(stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    assert cli.main(["--help"]) == 0
    assert cli.main(["sample", "nowhere"]) == 1
    assert sys.stdout is stream
