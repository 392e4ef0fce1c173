"""Stages as copies of a warm process: they behave as processes of their own would."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from launching import wait_for
from project import ROOT

from palinode.pipeline import warm
from palinode.pipeline.warm import WarmProcess

pytestmark = pytest.mark.slow
ASK = "import sys\nfrom palinode.pipeline import warm\nif warm.is_wanted('x') and (status := warm.run()) is not None:\n"
SCRIPT = f"{ASK}    sys.exit(status)\n{{}}\n"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    process = WarmProcess(tmp_path_factory.mktemp("warm") / "warm.log")
    yield process.address
    process.stop()


def start(folder: Path, address: str, program: str, *arguments: str, **environment: str) -> subprocess.Popen:
    """A stage that runs `program`."""
    script = folder / "script.py"
    script.write_text(SCRIPT.format(program))
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), warm.ADDRESS: address} | environment
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, str(script), *arguments], cwd=folder, env=environment, **pipes)


def test_a_copy_has_the_arguments_folder_environment_and_output_of_its_stage(address, tmp_path):
    program = "import os\nprint(sys.argv[1:], os.getcwd(), os.environ['X'], warm.ADDRESS in os.environ, flush=True)"
    program += "\nprint('b', file=sys.stderr)"
    stage = start(tmp_path, address, program, "one", "two", X="set")
    output, errors = stage.communicate()
    assert output == f"['one', 'two'] {tmp_path} set False\n"
    assert errors == "b\n"
    assert stage.returncode == 0


def test_the_packages_are_there_and_the_project_is_read_anew(address, tmp_path):
    library = tmp_path / "src"
    shutil.copytree(ROOT / "src/palinode", library / "palinode")
    program = "from palinode.pipeline import cluster\nprint('diffusers' in sys.modules, cluster.__file__)"
    stage = start(tmp_path, address, program, PYTHONPATH="src")
    assert stage.communicate()[0] == f"True {library / 'palinode/pipeline/cluster.py'}\n"


@pytest.mark.parametrize(
    ("program", "status", "line"),
    [
        ("sys.exit('error: no')", 1, "error: no"),
        ("sys.exit(3)", 3, ""),
        ("raise ValueError('what')", 1, "ValueError: what"),
        ("import os\nos.kill(os.getpid(), 9)", warm.KILLED, ""),
    ],
)
def test_a_copy_ends_as_its_stage_would(address, tmp_path, program, status, line):
    stage = start(tmp_path, address, program)
    errors = stage.communicate()[1]
    assert stage.returncode == status
    assert errors.strip().splitlines()[-1:] == ([line] if line else [])


WAIT = """
import os, time
from pathlib import Path
try:
    Path("pid.tmp").write_text(str(os.getpid()))
    os.rename("pid.tmp", "pid")
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit("interrupted")
"""


def find_copy(folder: Path) -> psutil.Process:
    wait_for((folder / "pid").exists)
    return psutil.Process(int((folder / "pid").read_text()))


def test_an_interrupt_reaches_the_copy(address, tmp_path):
    stage = start(tmp_path, address, WAIT)
    find_copy(tmp_path)
    stage.send_signal(signal.SIGINT)
    assert stage.communicate()[1] == "interrupted\n"
    assert stage.returncode == 1


def test_a_copy_ends_with_its_stage(address, tmp_path):
    stage = start(tmp_path, address, WAIT)
    copy = find_copy(tmp_path)
    stage.kill()
    stage.communicate()
    wait_for(lambda: not copy.is_running(), 10)


@pytest.mark.parametrize("moment", ["before", "while it is asked"])
def test_a_stage_does_its_work_itself_when_the_warm_process_has_ended(tmp_path, moment):
    address = str(tmp_path / "ended")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        if moment != "before":
            listener.listen()
        stage = start(tmp_path, address, "print('done')")
        if moment != "before":
            listener.accept()[0].close()
        lines = stage.communicate()[0].splitlines()
    assert lines == ["note: the warm process has ended; this stage starts without it", "done"]


def test_a_crash_is_not_taken_for_a_kill(address, tmp_path):
    stage = start(tmp_path, address, "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert "Fatal Python error: Segmentation fault" in stage.communicate()[1]
    assert stage.returncode == warm.KILLED


def test_small_stages_stay(monkeypatch):
    monkeypatch.setenv(warm.ADDRESS, "somewhere")
    assert [script for script in ("plan", "bind", "report", "unlearn") if warm.is_wanted(script)] == ["unlearn"]
