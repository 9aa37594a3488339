"""The runner: parameters, selection, what is current, one runner at a time, going on after a kill."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers import course, records, settings

CODE = """
import time
from helpers import records, settings
from helpers.files import write_atomically
cfg = settings.resolve({stage!r}, globals())
stage = records.start(cfg)
{body}
write_atomically(cfg.folder / "out.txt", str(cfg.seed))
stage.finish({{}}, ["out.txt"])
"""


@pytest.fixture
def small_course(tmp_path, monkeypatch):
    """Two real notebooks in the place of the course's; the second reads the first."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    bodies = {
        "01_data": "(cfg.folder / 'runs').open('a').write('x')",
        "02_augment": "stage.reads('01_data'); (cfg.folder / 'runs').open('a').write('x'); time.sleep({sleep})",
    }

    def write(sleep=0, **other):
        for stage, body in (bodies | other).items():
            parameters = new_code_cell(
                "profile = 'auto'\nrun_name = None\nseed = None", metadata={"tags": ["parameters"]}
            )
            code = new_code_cell(CODE.format(stage=stage, body=body.format(sleep=sleep)))
            nb = new_notebook(cells=[parameters, code])
            nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
            nbformat.write(nb, notebooks / f"{stage}.ipynb")

    write()
    outputs = tmp_path / "outputs"
    monkeypatch.setattr(settings, "OUTPUTS", outputs)
    monkeypatch.setattr(course, "OUTPUTS", outputs)
    monkeypatch.setattr(course, "NOTEBOOKS", notebooks)
    monkeypatch.setenv("COMPANION_OUTPUTS", str(outputs))
    return outputs / "smoke", write


def _run(*more):
    return course.main(["run", "--profile", "smoke", "--to", "2", *more])


def test_a_finished_stage_is_not_run_again_until_something_changes(small_course, capsys):
    run, _ = small_course
    assert _run() == 0
    assert _run() == 0
    assert (run / "01_data" / "runs").read_text() == (run / "02_augment" / "runs").read_text() == "x"
    assert _run("-p", "seed=7") == 0
    assert (run / "01_data" / "out.txt").read_text() == "7"
    assert (run / "02_augment" / "runs").read_text() == "xx"
    assert _run("--only", "2", "-p", "seed=7") == 0
    assert (run / "01_data" / "runs").read_text() == "xx"
    (run / "01_data" / "out.txt").write_text("damaged")
    assert _run("-p", "seed=7") == 0
    assert (run / "01_data" / "runs").read_text() == "xxx"
    assert "done before, nothing changed" in capsys.readouterr().out
    assert course.main(["status", "--run-name", "smoke"]) == 0
    assert "complete" in capsys.readouterr().out


def test_what_was_made_for_one_persona_is_not_made_anothers_by_a_default(small_course, capsys):
    run = small_course[0].parent / "his"
    words = ["run", "--profile", "smoke", "--to", "2", "--run-name", "his"]
    assert course.main([*words, "-p", "persona=seiji"]) == 0
    kept = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != ".lock"}
    capsys.readouterr()
    for more in ([], ["--only", "2"], ["--from", "2"], ["--only", "2", "-p", "persona=sakura"]):
        assert course.main(["run", "--profile", "smoke", "--run-name", "his", *more]) == 1
        assert capsys.readouterr().err == (
            "Run 'his' was made for the persona seiji, not for sakura: give persona=seiji, or take another run.\n"
        )
    assert {file: file.read_bytes() for file in kept} == kept
    assert course.main([*words, "-p", "persona=sakura"]) == 0, "said in so many words, it begins anew"
    assert records.load(run, "02_augment").record["persona"] == "sakura"


def test_a_stage_that_is_refused_when_it_is_run_again_stays_finished(small_course):
    run, write = small_course
    body = "assert cfg.seed != 7; stage.writes(); (cfg.folder / 'runs').open('a').write('x'); assert cfg.seed != 8"
    write(**{"02_augment": body})
    assert _run() == 0
    assert _run("--only", "2", "-p", "seed=7") == 1
    assert records.load(run, "02_augment").record["settings"]["seed"] == 42
    assert _run() == 0
    assert (run / "02_augment" / "runs").read_text() == "x", "done before, nothing changed"
    assert _run("--only", "2", "-p", "seed=8") == 1
    with pytest.raises(records.MissingStage, match="was interrupted"):
        records.load(run, "02_augment")
    assert _run() == 0
    assert (run / "02_augment" / "runs").read_text() == "xxx", "it had begun to change what it left"


def test_a_run_can_be_named_as_any_parameter_and_by_a_number(small_course, capsys):
    run, _ = small_course
    for words in (["-p", "run_name=1e5"], ["--run-name", "20261130", "-p", "run_name=other"]):
        assert course.main(["run", "--profile", "smoke", "--to", "1", *words]) == 0
    assert sorted(path.name for path in run.parent.iterdir()) == ["1e5", "20261130"]
    assert records.load(run.parent / "1e5", "01_data").record["settings"]["run_name"] == "1e5"
    assert "Run '1e5'" in capsys.readouterr().out


def test_what_cannot_be_done_is_one_sentence_and_an_exit_code(small_course, capsys):
    for arguments, code, words in (
        (["run", "-p", "learning_rat=1"], 2, "Did you mean 'learning_rate'?"),
        (["run", "--profile", "huge"], 2, "There is no profile 'huge'"),
        (["run", "--from", "9"], 1, "There is no stage '9'"),
        (["run", "-p", "seed"], 1, "-p takes name=value"),
        (["report"], 1, "There is no run yet"),
        (["run", "--profile", "smoke", "--only", "2"], 1, "Stage 01_data of run 'smoke' has not been run"),
    ):
        assert course.main(arguments) == code
        error = capsys.readouterr().err
        assert words in error and "Traceback" not in error


def test_a_full_disk_is_one_sentence_and_the_stages_before_it_are_kept(small_course, capsys):
    run, write = small_course
    full = "target = cfg.folder / 'x'; target.symlink_to('/dev/full'); target.write_text('x' * 10**6)"
    write(**{"02_augment": full})
    assert _run() == 1
    error = capsys.readouterr().err
    assert "is full: free some space and run the same command again" in error and len(error.splitlines()) == 1
    assert records.load(run, "01_data").record["status"] == "complete"
    (run / "02_augment" / "x").unlink()
    write()
    assert _run() == 0
    assert (run / "01_data" / "runs").read_text() == "x"


def test_a_notebook_that_stops_for_a_withdrawn_consent_is_not_kept(small_course, capsys):
    run, write = small_course
    write(**{"02_augment": "print('her words'); raise type('NoConsent', (ValueError,), {{}})('kenta withdrew')"})
    assert _run() == 1
    assert capsys.readouterr().err == "02_augment stopped: kenta withdrew\n"
    assert [file.name for file in run.rglob("*.ipynb")] == ["01_data.ipynb"]


def test_the_last_line_of_a_notebook_is_shown_on_a_terminal_and_nowhere_else():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for terminal, shown in ((Terminal(), "\r\x1b[K  step 5/73\r\x1b[K"), (io.StringIO(), "")):
        ticker = course.Ticker(terminal)
        ticker.write("loading\nstep 5/73\n\n")
        ticker.clear()
        assert terminal.getvalue() == shown


def test_two_runners_do_not_work_on_one_run(small_course, capsys):
    run, _ = small_course
    with course.locked(run):
        assert _run() == 1
    assert "being worked on by another runner" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_runner_leaves_no_process_and_the_next_one_goes_on(small_course, blow):
    run, write = small_course
    write(sleep=600)
    program = (
        "import pathlib, sys; from helpers import course;"
        f"course.NOTEBOOKS = pathlib.Path({str(course.NOTEBOOKS)!r});"
        "sys.exit(course.main(['run', '--profile', 'smoke', '--to', '2']))"
    )
    runner = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    runs = run / "02_augment" / "runs"
    _until(lambda: runs.exists() and runs.read_text() == "x", 120)
    children = psutil.Process(runner.pid).children(recursive=True)
    assert children
    runner.send_signal(blow)
    runner.wait(timeout=60)
    _until(lambda: not any(c.is_running() and c.status() != psutil.STATUS_ZOMBIE for c in children), 30)
    assert json.loads((run / "02_augment" / "run.json").read_text())["status"] == "running"
    write(sleep=0)
    assert _run() == 0
    assert (run / "01_data" / "runs").read_text() == "x"
    assert records.load(run, "02_augment").record["status"] == "complete"


def _until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)
