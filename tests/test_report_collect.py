"""Cells as the stages would write them, and what the report makes of them: means over seeds and subjects."""

import shutil
from pathlib import Path

import made_bases
import numpy as np
import pytest

from palinode.core import io
from palinode.core.errors import UserError
from palinode.core.estimate import wilson
from palinode.params.fields import Training
from palinode.params.report_settings import ReportRow, ReportSettings, ReportTask
from palinode.report import collect, records
from palinode.report.averages import TIMES, Estimate
from palinode.report.collect import Cell, Row

REPOSITORY = Path(__file__).parent.parent
# name, paper row, Inception score, NLL, ε-error, share of the new noise in the images
ROWS = (
    ("naive", "naive", 8.9, 1.35, 0.071, 0.1),
    ("neggrad", "neggrad", 1.2, 15.1, 34.0, 4.0),
    ("siss-0", "siss_0.0", 8.8, 1.28, 0.069, 0.12),
    ("siss-05", "siss_0.5", 8.6, 7.4, 0.61, 0.3),
    ("siss-1", "siss_1.0", 1.6, 9.1, 1.7, 3.0),
    ("siss-no-is", "siss_no_is", 8.7, 7.9, 0.66, 0.25),
    ("erasediff-siss", "erasediff_siss", 5.6, 10.2, 0.33, 1.2),
    ("erasediff", None, 8.1, 5.1, 0.4, 0.5),
)
NFE = {"siss-05": (1, 2), "siss-0": (1, 2), "siss-1": (1, 2), "naive": (1, 1), "neggrad": (1, 1)}
LOSSES = {"naive": ("retain",), "neggrad": ("forget",)}
R = 200
N = 1024
STEPS = 150
BATCH = 64


def metric(value, spread, interval="bootstrap", n=N):
    lo, hi = (None, None) if interval == "none" else (value - 1.96 * spread, value + 1.96 * spread)
    return {"value": value, "lo": lo, "hi": hi, "n": n, "interval": interval}


def rate(value, n):
    lo, hi = wilson(value, n)
    return {"value": value, "lo": lo, "hi": hi, "n": n, "interval": "wilson"}


def absent(reason):
    return {"value": None, "lo": None, "hi": None, "n": 0, "interval": "none", "reason": reason}


def settings(**changes) -> ReportSettings:
    """A report of nothing but what is given."""
    empty = {"root_seed": 1, "seeds": [0], "tasks": [], "bases": [], "detected": [], "attacked": [], "counted": []}
    return ReportSettings(**(empty | changes))


def make_rows(names: dict[str, str | None], **training) -> dict[str, ReportRow]:
    """Rows by name, with the paper's id; all of them train alike."""
    common = Training(**({"lr": 2e-4, "steps": STEPS, "batch": BATCH // 2, "accumulate": 2} | training))
    return {
        name: ReportRow(method=name.split("-")[0], paper=paper, options={"ratio": 0.1}, training=common)
        for name, paper in names.items()
    }


def write_evaluation(folder, entries, replicates):
    io.write_json(folder / "metrics.json", entries)
    io.write_arrays(folder / "replicates.npz", replicates)


def write_losses(cell, names, rng):
    """A training.csv with these losses; the step alone without any."""
    lines = [
        {"step": step} | {f"loss_{name}": 9 + float(rng.normal()) for name in names} | {"norm": 50.0}
        for step in range(STEPS)
    ]
    io.write_csv(cell / "training/training.csv", lines)


def write_image_cell(folder, score, nll, eps, drift, nfe, seed=0):
    """One evaluated cell with plausible numbers; replicates share their noise across cells, as paired ones do."""
    rng = np.random.default_rng(len(str(folder)) + seed)
    shift = 0.02 * rng.normal()
    entries = {
        "inception_score_judge": metric(score * (1 + shift), 0.02 * score),
        "kid_judge": metric(0.004 + 0.05 * drift, 0.002),
        "fid_inception": absent("no Inception weights are configured"),
    }
    if nll is None:
        entries["nll_forget"] = absent("real images have no model")
    else:
        entries |= {
            "nll_forget": metric(nll * (1 + shift), 0.04 * nll, n=8),
            "eps_error_forget": metric(eps, 0.03 * eps, n=640),
            "forget_rate": rate(0.0, N),
            "denoise_similarity_ssim": metric(max(0.0, 0.95 - drift / 3), 0.02),
            "integrity_judge": metric(1 - drift, 0.0 if drift == 0 else 0.02),
            "integrity_lpips_alex": absent("no LPIPS trunk is configured"),
            "oracle_similarity_judge": metric(0.1 - drift / 10, 0.02),
        }
    if nfe:
        seen = STEPS * BATCH
        entries["nfe_forward"] = metric(nfe[0] * seen, 0, "none", 1)
        entries["nfe_backward"] = metric(nfe[1] * seen, 0, "none", 1)
    shared = np.random.default_rng(0).normal(size=R)
    replicates = {
        name: entry["value"] + (entry["hi"] - entry["value"]) / 1.96 * shared
        for name, entry in entries.items()
        if entry["lo"] is not None
    }
    write_evaluation(folder / "evaluation", entries, replicates)
    if nfe:
        write_losses(folder, LOSSES.get(folder.parent.name, ("retain", "forget")), rng)


def draw_glyphs(rng, count):
    """Stroke-like grey images, uint8 [count,16,16,1]."""
    y, x = np.mgrid[:16, :16]
    drawn = []
    for a, b, c, d in rng.uniform(3, 12, size=(count, 4)):
        ring = np.abs(np.hypot(x - a, y - b) - c / 2.5) < 1.1
        bar = (np.abs(x - d) < 1) & (y > 2) & (y < 13)
        drawn.append(np.where(ring | bar, 235, 0))
    return np.stack(drawn).astype(np.uint8)[..., None]


def make_run(root, seeds=(0,), subjects=(0,)) -> ReportSettings:
    """Write cells, data, models and reference tables under `root`: one images task."""
    rng = np.random.default_rng(1)
    digits = draw_glyphs(rng, 32)
    shirt = np.zeros((1, 16, 16, 1), np.uint8)
    shirt[:, 3:14, 5:11] = shirt[:, 3:6, 2:14] = 200
    base = digits.copy()
    base[[5, 20]] = shirt
    data = root / "out/tasks/tshirt"
    io.write_array(data / "forget.npy", shirt)
    io.write_json(data / "metadata.json", {"subjects": [{"forget": [0], "hit_distance": 4.77} for _ in subjects]})
    noise = rng.normal(size=base.shape)

    def write(subject, name, seed, score, nll, eps, drift, nfe=None):
        folder = root / "out/cells/tshirt" / str(subject) / name / str(seed)
        write_image_cell(folder, score, nll, eps, drift, nfe, seed)
        place = folder / "samples" if nfe else root / "out/references/tshirt" / name
        clean = base if name == "base" else digits
        drawn = np.clip(clean + 40 * drift * noise, 0, 255).astype(np.uint8)
        io.write_array(place / "samples.npy", drawn)

    for subject in subjects:
        write(subject, "real", 0, 9.3, None, None, 0.0)
        write(subject, "base", 0, 9.1, 1.1, 0.063, 0.0)
        write(subject, "oracle", 0, 9.0, 6.0, 0.52, 0.9)
        for name, _, *numbers in ROWS:
            for seed in seeds:
                write(subject, name, seed, *numbers, NFE.get(name, (2, 2)))
    shutil.copytree(REPOSITORY / "reference", root / "reference")
    made_bases.write(root)
    rows = make_rows({name: paper for name, paper, *_ in ROWS})
    task = ReportTask(name="tshirt", kind="images", subjects=list(subjects), rows=rows)
    return settings(seeds=list(seeds), tasks=[task], bases=made_bases.BASES)


def cell(subject, seed, entry, replicates=None):
    """A cell with one metric: a share where the entry is one, else one of any size."""
    name = "forget_rate" if entry["interval"] == "wilson" else "nll_forget"
    drawn = {} if replicates is None else {name: replicates}
    return Cell(str(subject), seed, Path("cell"), {name: entry}, drawn)


def test_several_seeds_add_what_varies_between_them(tmp_path):
    run = make_run(tmp_path, seeds=(0, 1, 2))
    row = collect.collect(run, tmp_path)[0].row("siss-05")
    values = np.array([part.estimate("nll_forget").value for part in row.cells])
    estimate = row.estimate("nll_forget")
    assert estimate.interval == "seeds" and estimate.n == 3 and estimate.value == pytest.approx(values.mean())
    assert estimate.lo < estimate.value < estimate.hi
    assert estimate.replicates.shape == (TIMES * R,) and estimate.samples == 8
    cost = row.estimate("cost_per_sample")
    assert (cost.value, cost.interval) == (5, "none")


def test_a_missing_cell_is_named(tmp_path):
    run = make_run(tmp_path)
    shutil.rmtree(tmp_path / "out/cells/tshirt/0/siss-1/0/evaluation")
    with pytest.raises(UserError, match="0/siss-1/0 is not evaluated"):
        collect.collect(run, tmp_path)


def test_a_single_cell_keeps_its_own_interval():
    estimate = Row("row", [cell(0, 0, rate(0.5, 48), np.arange(R))]).estimate("forget_rate")
    assert (estimate.n, estimate.interval, estimate.samples) == (48, "wilson", 48)
    assert (estimate.lo, estimate.hi) == wilson(0.5, 48)
    assert (estimate.replicates == np.tile(np.arange(R), TIMES)).all(), "as many as of rows with several seeds"


def test_a_row_is_the_mean_over_subjects_of_means_over_seeds():
    cells = [cell(subject, seed, metric(10 * subject + seed, 1.0)) for subject in (0, 1, 2) for seed in (0, 1)]
    estimate = Row("row", cells).estimate("nll_forget")
    assert (estimate.value, estimate.n, estimate.interval) == (10.5, 3, "subjects")


def test_an_exact_count_stays_exact():
    alike = Row("row", [cell(subject, 0, metric(5, 0, "none", 1)) for subject in (0, 1)]).estimate("nll_forget")
    assert (alike.value, alike.interval, alike.lo) == (5, "none", None)
    apart = Row("row", [cell(subject, 0, metric(subject, 0, "none", 1)) for subject in (0, 1)]).estimate("nll_forget")
    assert (apart.value, apart.interval, apart.n) == (0.5, "subjects", 2)


def test_an_absent_subject_is_named():
    row = Row("row", [cell(0, 0, metric(1.0, 1.0)), Cell("1", 0, Path("cell"), absent="it failed")])
    assert row.estimate("nll_forget") == Estimate(reason="subject 1: it failed")


def test_subjects_that_a_task_does_not_have_are_left_out(tmp_path):
    run = make_run(tmp_path, subjects=(0, 1))
    cells = tmp_path / "out/cells/tshirt"
    for row in (cells / "1").iterdir():
        shutil.rmtree(row / "0")
        io.write_absence(row / "0/evaluation", "no subject 1: the task has one")
    (task,) = collect.collect(run, tmp_path)
    assert task.subjects == ["0"]
    assert [part.subject for part in task.row("siss-05").cells] == ["0"]
    assert task.row("siss-05").estimate("nll_forget").interval == "bootstrap"
    for row in (cells / "0").iterdir():
        shutil.rmtree(row / "0")
        io.write_absence(row / "0/evaluation", "no subject 0: nothing is memorized")
    (task,) = collect.collect(run, tmp_path)
    assert task.row("siss-05").estimate("nll_forget").reason == "no subject 0: nothing is memorized"


def test_the_sequential_model_has_metrics_of_its_own(tmp_path):
    folder = tmp_path / "0/siss/0"
    write_evaluation(folder / "evaluation", {"memorized_original": rate(0.5, 8)}, {"memorized_original": np.ones(R)})
    single = collect.read_cell(folder, "0", 0, [])
    several = collect.read_cell(folder, "sequential", 0, [])
    row = Row("siss", [single, several])
    assert row.estimate("memorized_original").samples == 8, "it is not averaged with the others"
    assert row.estimate("sequential_memorized_original").value == 0.5
    assert row.estimate("sequential_memorized_original").replicates is not None
    assert Row("siss", [single]).estimate("sequential_memorized_original").value is None


def test_records_have_a_line_a_cell_and_one_for_all(tmp_path):
    run = make_run(tmp_path, seeds=(0, 1), subjects=(0, 1))
    lines = records.list_records(collect.collect(run, tmp_path))
    assert all(set(line) == set(records.FIELDS) for line in lines)
    keys = [
        (line["subject"], line["seed"]) for line in lines if (line["row"], line["metric"]) == ("naive", "nll_forget")
    ]
    assert keys == [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1"), ("all", "all")]
    line = next(line for line in lines if (line["row"], line["metric"]) == ("naive", "forget_rate"))
    assert (line["kind"], line["unit"], line["direction"]) == ("images", "fraction", "down")
