"""SIGKILL at any moment, then the same command: the same bytes, and little of the work done twice."""

import copy
import os
import random
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
import torch
from project import PARAMETERS, ROOT, Project

from palinode.metrics import image_metrics

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

STEPS = 100
CHUNKS = 20
EVALUATION = ("evaluate", "images", "tiny", "0", "reference", "base")
EVALUATED = "out/cells/tiny/0/base/0/evaluation"


@dataclass(frozen=True)
class Killed:
    """A stage that is killed.

    command: script and arguments; output: what it writes; pattern: its finished work in scratch; between: bounds of the
    number of pieces after which it is killed.
    """

    command: tuple[str, ...]
    output: str
    pattern: str
    between: tuple[int, int]

    @property
    def trains(self) -> bool:
        return self.pattern == "checkpoint.pt"


UNLEARN = ("unlearn", "images", "tiny", "0", "siss-05", "0")
SAMPLE = ("sample", "images", "tiny", "reference", "base")
STAGES = {
    "pretrain": Killed(("pretrain", "tiny"), "models/tiny", "checkpoint.pt", (1, 6)),
    "pretrain a class base": Killed(("pretrain", "two"), "models/two", "checkpoint.pt", (1, 6)),
    "unlearn": Killed(UNLEARN, "out/cells/tiny/0/siss-05/0", "checkpoint.pt", (1, 6)),
    "gate": Killed(("gate", "tiny"), "models/tiny/gate", "chunk-*.npy", (1, 7)),
    "sample": Killed(SAMPLE, "out/references/tiny/base", "chunk-*.npy", (1, 7)),
    "evaluate": Killed(EVALUATION, EVALUATED, "*.json", (1, 3)),
}


@pytest.fixture(scope="module")
def ready(tmp_path_factory) -> Project:
    """Stages long enough to be killed twice: 100 steps, 20 chunks."""
    parameters = copy.deepcopy(PARAMETERS)
    base = parameters["base_models"]["tiny"]
    task = parameters["image_tasks"]["tiny"]
    base["pretrain"] |= {"steps": STEPS, "ema": {"limit": 0.9}}
    base["gate"]["samples"] = task["sample"]["count"] = 4 * CHUNKS
    task["sample"]["steps"] = 12
    task["evaluate"] |= {"ode_steps": 8, "eps_draws": 16, "denoise_from": 20}
    parameters["rows"]["siss-05"]["steps"] = STEPS
    judge = base["data"]["judge"]
    two = {"images": judge["train"], "judge": judge, "pretrain": base["pretrain"]}
    parameters["base_models"]["two"] = tiny.CLASS_BASE | two
    parameters["bases"] = [*PARAMETERS["bases"], "two"]
    project = Project.create(tmp_path_factory.mktemp("resume") / "ready", parameters).begin()
    project.call("prepare", "base", "two")
    return project


def list_pieces(project: Project, pattern: str) -> dict[Path, int]:
    """The finished work that waits in scratch, with the time of writing."""
    return {path: path.stat().st_mtime_ns for path in project.scratch.glob(f"*/{pattern}") if path.name[0] != "."}


def kill(project: Project, command: list[str], pattern: str, after: int, delay: float, log: Path) -> None:
    """Start a stage, and kill it once `after` more pieces are finished and `delay` seconds have passed."""
    seen = set(list_pieces(project, pattern).items())
    before = len(seen)
    deadline = time.monotonic() + 300
    environment = project.environment | {"PYTHONPATH": "src"}
    with open(log, "w") as output:
        process = subprocess.Popen(
            command, cwd=project.folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    while len(seen) < before + after:
        assert process.poll() is None, f"ended too early with status {process.returncode}: {log.read_text()}"
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.002)
        try:
            seen |= set(list_pieces(project, pattern).items())
        except FileNotFoundError:  # replaced while it was looked at
            continue
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it had finished before it was killed: make it longer"


def read_first_step(log: str) -> int:
    """The step a training run started from, as its progress bar says."""
    return int(re.search(rf"(\d+)/{STEPS} ", log)[1])


def break_and_mend(ready: Project, place: Path, name: str) -> tuple[dict, dict, Project]:
    """Kill the stage twice and let it finish: the digests of its output undisturbed and mended, and the mended project.

    Asserts that a piece that was finished is never made again; a training run continues from its last checkpoint.
    """
    stage = STAGES[name]
    whole, broken = (ready.copy(place / name / copied) for copied in ("whole", "broken"))
    chance = random.Random(name)
    log = place / name / "log"

    def find_step() -> int:
        return next((torch.load(path, weights_only=True)["step"] for path in list_pieces(broken, stage.pattern)), 0)

    for moment in range(2):
        after = chance.randint(*stage.between) // (moment + 1) or 1
        delay = chance.uniform(0, 0.05)
        done = list_pieces(broken, stage.pattern)
        start = find_step() if stage.trains else None
        kill(broken, broken.command(*stage.command), stage.pattern, after, delay, log)
        if stage.trains:
            assert read_first_step(log.read_text()) == start <= find_step() - STEPS // 12
        else:
            assert done.items() <= list_pieces(broken, stage.pattern).items(), "a finished piece was made again"
    start = find_step() if stage.trains else None
    finishing = broken.stage(*stage.command)
    assert not stage.trains or read_first_step(finishing.stderr) == start
    whole.stage(*stage.command)
    return whole.digest(stage.output), broken.digest(stage.output), broken


@pytest.fixture(scope="module")
def mended(ready, tmp_path_factory):
    """What `break_and_mend` gives for every stage, two at a time."""
    place = tmp_path_factory.mktemp("mended")
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(break_and_mend, ready, place, name) for name in STAGES}


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_a_killed_stage_continues_to_the_same_bytes(mended, name):
    whole, again, project = mended[name].result()
    assert whole and whole == again
    assert not any(project.scratch.iterdir()) and not project.leftovers()


# What a continued run may reuse


def flip_byte(path: Path) -> None:
    """Change the last number of a file by a little."""
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)


class Pieces:
    """Counts the pieces of an evaluation that are computed, and interrupts it before the last."""

    def __init__(self, monkeypatch):
        self.computed: list[str] = []
        self.interrupts = True
        pieces = {name: self._watch(name, piece) for name, piece in image_metrics.PIECES.items()}
        self.last = list(pieces)[-1]
        monkeypatch.setattr(image_metrics, "PIECES", pieces)

    def _watch(self, name, piece):
        def compute(context):
            if name == self.last and self.interrupts:
                raise KeyboardInterrupt
            self.computed.append(name)
            return piece(context)

        return compute

    def interrupt(self, project: Project) -> None:
        with pytest.raises(KeyboardInterrupt):
            project.call(*EVALUATION)


@pytest.mark.parametrize(
    "changed",
    [
        "out/bases/tiny/judge/judge.safetensors",
        "out/tasks/tiny/reference.npy",
        "out/references/tiny/base/samples.npy",
        "out/bases/tiny/base/unet/diffusion_pytorch_model.safetensors",
    ],
)
def test_nothing_is_reused_of_another_judge_data_or_model(ready, tmp_path, monkeypatch, changed):
    project = ready.copy(tmp_path / "project")
    pieces = Pieces(monkeypatch)
    everything = list(image_metrics.PIECES)
    pieces.interrupt(project)
    assert pieces.computed == everything[:-1]
    pieces.interrupt(project)
    assert pieces.computed == everything[:-1], "the same inputs: what is finished is not computed again"
    flip_byte(project.folder / changed)
    pieces.computed.clear()
    pieces.interrupts = False
    project.call(*EVALUATION)
    assert pieces.computed == everything, "other inputs: nothing is taken over"
    (waiting,) = project.scratch.iterdir()
    assert len(list(waiting.glob("*.json"))) == len(everything) - 1, "what belongs to the old inputs stays"


def test_an_interrupted_evaluation_ends_as_an_undisturbed_one(ready, tmp_path, monkeypatch):
    whole, broken = (ready.copy(tmp_path / name) for name in ("whole", "broken"))
    whole.call(*EVALUATION)
    pieces = Pieces(monkeypatch)
    pieces.interrupt(broken)
    pieces.interrupts = False
    broken.call(*EVALUATION)
    assert broken.digest(EVALUATED) == whole.digest(EVALUATED)
    assert not any(broken.scratch.iterdir())


def test_a_temporary_file_of_a_killed_run_is_no_input():
    """A SIGKILL inside a write leaves `.name.PID.tmp` beside the output; neither DVC nor git may take it in."""
    ignored = {name: (ROOT / name).read_text().splitlines() for name in (".dvcignore", ".gitignore")}
    assert all(".*.tmp" in lines for lines in ignored.values())


@pytest.mark.slow
def test_two_processes_draw_the_same_bytes(ready, tmp_path):
    alone, shared = (ready.copy(tmp_path / name) for name in ("alone", "shared"))
    shared.change("runtime/processes", 2)
    shared.call("plan")
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(project.stage, *SAMPLE) for project in (alone, shared)]
        workers = set()
        while not all(run.done() for run in runs):
            workers |= find_ranks(shared)
            time.sleep(0.05)
        for run in runs:
            run.result()
    assert workers == {"0", "1"}, "the ranks of the worker processes"
    assert alone.digest("out/references/tiny/base") == shared.digest("out/references/tiny/base")


def find_ranks(project: Project) -> set[str]:
    """The ranks of the processes that draw this project's samples now (Linux)."""
    ranks = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            pairs = (pair.partition("=") for pair in path.read_bytes().decode(errors="replace").split("\0"))
            environment = {name: value for name, _, value in pairs}
        except OSError:
            continue
        if environment.get("PALINODE_SHARDS", "").startswith(str(project.scratch)) and "RANK" in environment:
            ranks.add(environment["RANK"])
    return ranks
