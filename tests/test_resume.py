"""SIGKILL at any moment, then the same command: the same bytes, and little of the work done twice."""

import copy
import os
import random
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from project import PARAMETERS, Project

STEPS, CHUNKS = 100, 20
# stage: (arguments, what it writes, its finished work in scratch, bounds of the pieces after which it is killed)
STAGES = {
    "pretrain": (("tiny", "base"), "models/tiny/base", "checkpoint.pt", (1, 6)),
    "pretrain_class": (("two",), "models/two", "checkpoint.pt", (1, 6)),
    "unlearn": (("tiny", "siss-05", "0"), "out/cells/tiny/siss-05/0", "checkpoint.pt", (1, 6)),
    "gate": (("tiny",), "models/tiny/gate.json", "chunk-*.npy", (1, 7)),
    "sample": (("tiny", "base", "0"), "out/cells/tiny/base/0/samples", "chunk-*.npy", (1, 7)),
    "evaluate": (("tiny", "base", "0"), "out/cells/tiny/base/0/evaluation", "*.json", (1, 3)),
}


@pytest.fixture(scope="module")
def ready(tmp_path_factory) -> Project:
    """Stages long enough to be killed twice: 100 steps, 20 chunks."""
    parameters = copy.deepcopy(PARAMETERS)
    task = parameters["tasks"]["tiny"]
    task["pretrain"] |= {"steps": STEPS, "ema": {"limit": 0.9}}
    task["gate"]["samples"] = task["sample"]["count"] = 4 * CHUNKS
    task["sample"]["steps"] = 12
    task["evaluate"] |= {"ode_steps": 8, "eps_draws": 16, "denoise_from": 20}
    parameters["rows"]["siss-05"]["steps"] = STEPS
    parameters["classes"] = {"bases": ["two"], "oracles": []}
    parameters["class_bases"] = {"two": {
        "images": "data/judge-train.npy", "judge": task["data"]["judge"], "size": 16, "channels": 1,
        "model": task["model"], "pretrain": task["pretrain"],
    }}  # fmt: skip
    project = Project.create(tmp_path_factory.mktemp("resume") / "ready", parameters).begin()
    project.call("prepare_class", "two")
    return project


def pieces(project: Project, pattern: str) -> dict[Path, int]:
    """The finished work that waits in scratch, with the time of writing."""
    return {path: path.stat().st_mtime_ns for path in project.scratch.glob(f"*/{pattern}") if path.name[0] != "."}


def kill(project: Project, command: list[str], pattern: str, after: int, delay: float, log: Path) -> None:
    """Start a stage, and kill it once `after` more pieces are finished and `delay` seconds have passed."""
    seen = set(pieces(project, pattern).items())
    before, deadline = len(seen), time.monotonic() + 300
    environment = project.environment | {"PYTHONPATH": "src"}
    with open(log, "w") as stderr:
        process = subprocess.Popen(command, cwd=project.folder, env=environment, stdout=stderr, stderr=stderr,
                                   start_new_session=True)  # fmt: skip
    while len(seen) < before + after:
        assert process.poll() is None, f"ended too early with status {process.returncode}: {log.read_text()}"
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.002)
        try:
            seen |= set(pieces(project, pattern).items())
        except FileNotFoundError:  # replaced while it was looked at
            continue
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it had finished before it was killed: make it longer"


def first_step(log: str) -> int:
    """The step a training run started from, as its progress bar says."""
    return int(re.search(rf"(\d+)/{STEPS} ", log)[1])


def break_and_mend(ready: Project, place: Path, stage: str) -> tuple[dict, dict, Project]:
    """Kill the stage twice and let it finish: the digests of its output undisturbed and mended, and the mended project.

    Asserts that a piece that was finished is never made again; a training run continues from its last checkpoint.
    """
    arguments, output, pattern, between = STAGES[stage]
    whole, broken = (ready.copy(place / stage / name) for name in ("whole", "broken"))
    chance, log, training = random.Random(stage), place / stage / "log", pattern == "checkpoint.pt"

    def resumes_at() -> int:
        return next((torch.load(path, weights_only=True)["step"] for path in pieces(broken, pattern)), 0)

    for moment in range(2):
        after, delay = chance.randint(*between) // (moment + 1) or 1, chance.uniform(0, 0.05)
        done, start = pieces(broken, pattern), resumes_at() if training else None
        kill(broken, broken.command(stage, *arguments), pattern, after, delay, log)
        if training:
            assert first_step(log.read_text()) == start <= resumes_at() - STEPS // 12
        else:
            assert done.items() <= pieces(broken, pattern).items(), "a finished piece was made again"
    start = resumes_at() if training else None
    finishing = broken.stage(stage, *arguments)
    assert not training or first_step(finishing.stderr) == start
    whole.stage(stage, *arguments)
    return whole.digest(output), broken.digest(output), broken


@pytest.fixture(scope="module")
def mended(ready, tmp_path_factory):
    """What `break_and_mend` gives for every stage, two at a time."""
    place = tmp_path_factory.mktemp("mended")
    with ThreadPoolExecutor(2) as pool:
        yield {stage: pool.submit(break_and_mend, ready, place, stage) for stage in STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_continues_to_the_same_bytes(mended, stage):
    whole, again, project = mended[stage].result()
    assert whole and whole == again
    assert not any(project.scratch.iterdir()) and not project.leftovers()


def test_a_temporary_file_of_a_killed_run_is_no_input(ready):
    """A SIGKILL inside a write leaves `.name.PID.tmp` beside the output; neither DVC nor git may take it in."""
    ignored = {name: (ready.folder / name).read_text().splitlines() for name in (".dvcignore", ".gitignore")}
    assert all(".*.tmp" in lines for lines in ignored.values())


def test_two_processes_draw_the_same_bytes(ready, tmp_path):
    one, two = (ready.copy(tmp_path / name) for name in ("one", "two"))
    two.change("runtime/processes", 2)
    two.call("plan")
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(project.stage, "sample", *STAGES["sample"][0]) for project in (one, two)]
        workers = set()
        while not all(run.done() for run in runs):
            workers |= sharing(two)
            time.sleep(0.05)
        for run in runs:
            run.result()
    assert workers == {"0", "1"}, "the ranks of the worker processes"
    assert one.digest("out/cells/tiny/base/0/samples") == two.digest("out/cells/tiny/base/0/samples")


def sharing(project: Project) -> set[str]:
    """The ranks of the processes that draw this project's samples now (Linux)."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            pairs = (pair.partition("=") for pair in path.read_bytes().decode(errors="replace").split("\0"))
            environment = {name: value for name, _, value in pairs}
        except OSError:
            continue
        if environment.get("PALINODE_SHARDS", "").startswith(str(project.scratch)) and "RANK" in environment:
            found.add(environment["RANK"])
    return found
