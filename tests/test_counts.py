"""Forget images counted among many samples: what is counted, what is given up, what the report makes of it."""

import copy

import numpy as np
import pytest
import torch
from project import PARAMETERS, Project, failed
from test_report_collect import make_run, rate

from palinode import params
from palinode.core.io import absence, read_array, read_json, write_arrays, write_json
from palinode.metrics import forgetting
from palinode.metrics.registry import COUNTED
from palinode.models import unconditional
from palinode.params.report_settings import Counted
from palinode.report import collect
from palinode.sampling.unprompted import sample_chunk
from palinode.tasks.images import count

COUNT = 12
FAR = 1e6  # hit distances: nothing is given up


def parameters(**changes) -> dict:
    made = copy.deepcopy(PARAMETERS)
    made["counts"] = {"tasks": ["tiny"], "rows": ["naive"], "count": COUNT, "look": 1, "far": FAR, "chunk": 5} | changes
    return made


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project.create(tmp_path_factory.mktemp("counts") / "project", parameters()).begin("naive")


def test_what_is_counted_is_what_plain_sampling_draws(project, monkeypatch):
    """Of a hit distance that half of the samples of an untrained model keep."""
    model = unconditional.load(project.folder / "models/tiny/model")
    plain = sample_chunk(model, (1, "tiny count"), 0, COUNT, "ddpm", 3)
    data = project.folder / "out/tasks/tiny"
    distances = forgetting.measure_distances(plain, read_array(data / "forget.npy"))
    metadata = read_json(data / "metadata.json")
    metadata["subjects"][0]["hit_distance"] = float(np.median(distances))
    write_json(data / "metadata.json", metadata)
    project.call("count", "images", "tiny", "0", "naive", "0")
    project.call("count", "images", "tiny", "0", "reference", "base")
    cells = project.folder / "out/cells/tiny/0"
    for row in ("naive", "base"):
        entry = read_json(cells / row / "0/count/metrics.json")[COUNTED]
        assert entry["value"] == 0.5 and entry["n"] == COUNT and entry["interval"] == "wilson"
        assert read_json(cells / row / "0/count/count.json")["finished"] == COUNT
        assert (cells / row / "0/count/hits.png").exists()
    project.call("count", "images", "tiny", "0", "reference", "oracle")
    assert absence(cells / "oracle/0/count")


def test_trajectories_that_are_far_are_given_up(project, tmp_path):
    strict = project.copy(tmp_path / "strict")
    strict.change("counts/far", 1e-6)
    strict.call("plan")
    strict.call("count", "images", "tiny", "0", "naive", "0")
    counted = strict.folder / "out/cells/tiny/0/naive/0/count"
    assert read_json(counted / "count.json")["finished"] == 0
    assert read_json(counted / "metrics.json")[COUNTED]["value"] == 0
    assert not (counted / "hits.png").exists()


def test_near_is_measured_in_unit_pixels():
    forget = np.full((1, 2, 2, 1), 255, np.uint8)
    near = count.find_near(forget, 1.0, torch.device("cpu"))
    x = torch.ones(3, 1, 2, 2)
    x[1] = 0.1  # 0.45 away in each of four pixels of [0, 1]
    x[2] = -0.1  # 0.55 away
    assert near(x).tolist() == [True, True, False]
    assert near(3 * x).tolist() == [True, True, False], "as sampling clips it"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": ["neggrad"]}, "counts.rows: 'neggrad' is not in the list `images.rows`"),
        ({"tasks": ["other"]}, "counts.tasks: 'other' is not in the list `images.tasks`"),
        ({"seeds": [3]}, "counts.seeds: 3 is not in the list `seeds`"),
        ({"look": 3}, "counts.look: 3 is not below the 3 steps of 'tiny'"),
        ({"count": 0}, "counts.count: Input should be greater than or equal to 1"),
    ],
)
def test_counts_that_cannot_be_made_are_refused(project, tmp_path, changes, words):
    changed = project.copy(tmp_path / "changed")
    changed.write_parameters(parameters(**changes))
    assert words in failed(changed, "plan")


def test_a_task_that_is_sampled_without_noise_is_not_counted():
    made = parameters()
    made["image_tasks"]["tiny"]["sample"]["sampler"] = "ddim"
    with pytest.raises(ValueError, match="'tiny' is sampled by ddim; only ddpm is counted"):
        params.Params.model_validate(made)


def test_the_report_has_the_rate_of_the_seed_that_was_counted(tmp_path):
    run = make_run(tmp_path, seeds=(0, 1))
    drawn = np.linspace(0, 2e-3, 200)
    place = tmp_path / "out/cells/tshirt/0/naive/0/count"
    write_json(place / "metrics.json", {COUNTED: rate(1e-3, 30720)})
    write_arrays(place / "replicates.npz", {COUNTED: drawn})
    counted = run.model_copy(update={"counted": [Counted(task="tshirt", row="naive", seed=0)]})
    (task,) = collect.collect(counted, tmp_path)
    estimate = task.row("naive").estimate(COUNTED)
    assert estimate.value == 1e-3 and estimate.samples == 30720 and estimate.interval == "wilson"
    assert "not measured on this row" in task.row("siss-05").estimate(COUNTED).reason
    assert task.row("naive").estimate("nll_forget").n == 2, "other metrics are those of both seeds"
