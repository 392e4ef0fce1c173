"""The order in which stages run side by side, what they may use of a machine, and what is said when one fails."""

import json
from pathlib import Path

import pytest

from palinode.core.errors import UserError
from palinode.run import costs, drive, failures, machine, screen
from palinode.run.jobs import Job
from palinode.run.machine import Slots
from palinode.run.order import Schedule, simulate
from palinode.run.processes import log_of


def job(name: str, *upstream: str, cell: str | None = None, threads: int = 1) -> Job:
    outputs = (Path("out/x"),) if cell is None else (Path("out/cells") / cell / "model",)
    return Job(name, frozenset(upstream), outputs, threads)


def chain(cell: str) -> list[Job]:
    """The stages of one cell, which all wait for the preparation."""
    steps = [f"{verb}-images@{cell}" for verb in ("unlearn", "sample", "evaluate")]
    waits = ["prepare", *steps[:2]]
    return [job(step, above, cell=f"task/0/{cell}/0") for step, above in zip(steps, waits, strict=True)]


def run_all(schedule: Schedule) -> list[str]:
    """The order in which one worker runs them."""
    order = []
    while started := schedule.start_ready(Slots(1)):
        order.append(end(schedule, started[0][0].name))
    return order


def end(schedule: Schedule, name: str, ok: bool = True) -> str:
    """The job ends."""
    schedule.end(schedule.jobs[name], ok)
    return name


JOBS = [job("prepare"), *chain("short"), *chain("long"), job("report", "evaluate-images@short", "evaluate-images@long")]
SECONDS = {known.name: 10.0 if known.name.endswith("long") else 1.0 for known in JOBS}


def test_a_cell_is_finished_before_the_next_and_the_longest_is_first():
    order = run_all(Schedule(JOBS, SECONDS))
    cells = [name.split("@")[1] for name in order if "@" in name]
    assert cells == ["long"] * 3 + ["short"] * 3
    assert order[0] == "prepare" and order[-1] == "report"


def test_a_family_is_finished_before_the_next_is_prepared_and_the_shortest_is_first():
    concept = job("unlearn-concept@c-0", "prepare", cell="c/0/a/0")
    own = job("prepare-images@t", "prepare")
    schedule = Schedule([*JOBS, own, concept], SECONDS | {own.name: 1.0, concept.name: 5.0})
    assert run_all(schedule)[:3] == ["prepare", concept.name, own.name]


def test_references_come_before_cells():
    reference = job("evaluate-images-reference@t-0-base", "prepare", cell="task/0/base/0")
    schedule = Schedule([*JOBS, reference], SECONDS | {reference.name: 1.0})
    assert run_all(schedule)[1] == reference.name
    assert reference.row is None and JOBS[1].row == ("task", "short") and JOBS[0].row is None


def test_a_table_is_shown_with_the_first_row_and_when_all_are_there(monkeypatch):
    """The references of the family have ended before, and the report waits."""
    shown = []
    families: set[str] = set()
    monkeypatch.setattr(drive, "show_tables", lambda console, *kinds, unfinished: shown.append((kinds, unfinished)))
    reference = job("evaluate-images-reference@t-0-base", "prepare", cell="task/0/base/0")
    schedule = Schedule([*JOBS, reference], SECONDS | {reference.name: 1.0})
    with screen.Screen(schedule, 1) as shows:
        while started := schedule.start_ready(Slots(1)):
            end(schedule, started[0][0].name)
            drive.show_table(started[0][0], schedule, shows, families)
    assert shown == [(("images",), {Path("out/cells/task/0/short/0")}), (("images",), set())]


def test_a_failure_stops_its_successors_only():
    schedule = Schedule(JOBS, SECONDS)
    for name in ("prepare", "unlearn-images@long"):
        schedule.start_ready(Slots(1))
        end(schedule, name, ok=name == "prepare")
    assert schedule.skipped == {"sample-images@long", "evaluate-images@long", "report"}
    assert run_all(schedule) == [f"{verb}-images@short" for verb in ("unlearn", "sample", "evaluate")]
    assert schedule.failed == {"unlearn-images@long"}


def test_more_workers_take_less_time_down_to_the_longest_chain():
    alone, pair, many = (simulate(JOBS, SECONDS, Slots(count)) for count in (1, 2, 9))
    assert alone == sum(SECONDS.values()) == 35
    assert pair == many == 1 + 30 + 1
    wide = [job("a", threads=2), job("b")]
    assert simulate(wide, {"a": 4.0, "b": 4.0}, Slots(2)) == 8, "a stage of two threads has two cores for itself"


def test_cores_are_counted_and_gpus_are_leased():
    slots = Slots(2)
    wide = job("wide", threads=2)
    assert slots.take(wide) == {} and not slots.fits(job("other"))
    slots.give_back(wide)
    assert slots.fits(job("other"))
    slots = Slots(2, ("0", "3"))
    leased = [slots.take(job(name))["CUDA_VISIBLE_DEVICES"] for name in ("a", "b")]
    assert leased == ["0", "3"]
    assert not slots.fits(wide)
    slots.give_back(job("a"))
    assert slots.fits(wide), "a GPU is one stage's, whatever its threads"
    assert slots.take(wide)["CUDA_VISIBLE_DEVICES"] == "0"
    assert Slots(1, elsewhere=True).fits(wide), "so is a job of a cluster"


@pytest.mark.parametrize("jobs", ["0", "x", "-1", "1.5"])
def test_a_number_of_jobs_is_one_or_more(jobs):
    with pytest.raises(UserError, match=f"JOBS={jobs}: the number of stages to run at once, 1 or more"):
        machine.share(jobs, None, "auto")


def test_gpus_are_those_that_are_there(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    assert machine.share("4", None, "auto") == Slots(2, ("0", "2"))
    assert machine.share(None, "2,2", "auto").gpus == ("2",)
    assert machine.share(None, None, "cuda:1") == Slots(1), "it names its own GPU"
    assert machine.share("1", None, "auto").gpus == ("0",)
    assert machine.share(None, "2", "cuda").gpus == ("2",)
    assert machine.share("4", None, "cpu") == Slots(4)
    with pytest.raises(UserError, match="GPUS=1: no GPU '1' here, there are 0, 2"):
        machine.share(None, "1", "auto")
    with pytest.raises(UserError, match="GPUS=0: no GPU '0' here, there are none .runtime.device: cpu"):
        machine.share(None, "0", "cpu")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log_of("a").parent.mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    "text, status, line",
    [
        ("Running\nerror: out of memory: 2 GiB\nERROR: failed to reproduce 'a'", 255, "out of memory: 2 GiB"),
        ("ERROR: failed to reproduce 'a': failed to run: x, exited with 137", 255, "killed by the system, most likely"),
        ("\x1b[31mERROR\x1b[39m: output 'x' does not exist", 255, "output 'x' does not exist"),
        ("", -9, "killed by the system, most likely"),
        ("", 3, "ended with status 3"),
    ],
)
def test_a_failure_is_one_line(folder, text, status, line):
    log_of("a").write_text(text)
    assert failures.explain("a", status).startswith(line)


def test_costs_come_from_the_last_run_or_from_stages_of_the_same_group(folder):
    entries = [("sample-images@a", 9), ("sample-images@a", 10), ("sample-images@b", 20)]
    lines = [json.dumps({"stage": name, "seconds": seconds, "GiB": 1.5}) for name, seconds in entries]
    costs.LOG.write_text("\n".join([*lines, '{"stage": "cut o']))
    estimated = costs.estimate([job("sample-images@a"), job("sample-images@c"), job("gate@d")])
    assert estimated["sample-images@a"] == costs.Cost(10, 1.5, measured=True)
    assert estimated["sample-images@c"] == costs.Cost(15, 1.5, measured=False)
    assert estimated["gate@d"] == costs.Cost(costs.UNKNOWN, None, measured=False)


def test_times_are_short():
    assert [screen.show_time(seconds) for seconds in (0.4, 59, 90, 3600)] == ["0 s", "59 s", "2 min", "60 min"]
