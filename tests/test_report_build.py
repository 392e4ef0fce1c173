"""The report of an images task, built from made-up cells: shapes and bytes of its files, its page."""

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from test_report_collect import NFE, REPOSITORY, ROWS, STEPS, absent, make_run, settings, write_losses

from palinode.core import io
from palinode.core.work import PLANS
from palinode.metrics import registry
from palinode.report import build, collect, figures, loss_curves, pictures, records, tables, terminal
from palinode.report.reference_tables import read_mapping, read_tables

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

OUTPUTS = (
    "results/metrics.csv",
    "results/metrics.json",
    "results/figure.png",
    "results/plots/pareto.csv",
    "results/plots/training/tshirt-siss-05.csv",
    "report/index.html",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    run = make_run(root)
    return root, run, build.build(run, root)


def test_outputs_and_their_bytes(built, tmp_path):
    root, run, text = built
    for name in ("out", "models", "reference"):
        shutil.copytree(root / name, tmp_path / name)
    assert build.build(run, tmp_path) == text
    for name in OUTPUTS:
        assert (root / name).read_bytes() == (tmp_path / name).read_bytes(), name
    assert "siss-05" in text and re.search(
        r"claims: \d+ holds, \d+ fails, \d+ undecided, \d+ by construction, \d+ untested", text
    )


def test_the_table_in_the_terminal_can_leave_rows_out(built, monkeypatch):
    root, run, _ = built
    monkeypatch.chdir(root)
    io.write_json(PLANS / "report.json", {"settings": run.model_dump(mode="json")})
    console = Console(width=160, file=StringIO())
    terminal.show(["images"], console, frozenset({Path("out/cells/tshirt/0/naive/0")}))
    text = console.file.getvalue()
    assert "tshirt: 7 of 8 rows so far, value [95 % interval], the paper's number after the dot" in text
    assert "siss-05" in text and "naive" not in text


def test_metrics_csv_and_json(built):
    root = built[0]
    lines = io.read_csv(root / "results/metrics.csv")
    assert tuple(lines[0]) == records.FIELDS
    keyed = {(line["row"], line["subject"], line["seed"], line["metric"]): line for line in lines}
    assert len(keyed) == len(lines)
    lpips = keyed["siss-05", "0", "0", "integrity_lpips_alex"]
    assert lpips["value"] == "" and lpips["reason"] == "no LPIPS trunk is configured"
    assert float(keyed["siss-05", "0", "0", "cost_per_sample"]["value"]) == 5
    assert keyed["base", "all", "all", "nll_forget"]["value"] == keyed["base", "0", "0", "nll_forget"]["value"]
    assert keyed["base", "0", "0", "nll_forget"]["unit"] == "bits/dim"
    headline = json.loads((root / "results/metrics.json").read_text())
    assert list(headline["tshirt"])[:3] == ["real", "base", "oracle"] and "siss-no-is" in headline["tshirt"]
    assert set(headline["tshirt"]["siss-05"]) == set(registry.headline("images")) - {registry.COUNTED}
    assert f"{headline['tshirt']['naive']['nll_forget']:.6g}" == keyed["naive", "all", "all", "nll_forget"]["value"]


def test_each_plot_of_losses_holds_the_loss_that_it_names(built):
    plots = built[0] / "results/plots"
    cells = built[0] / "out/cells/tshirt/0"
    retain, forget = (
        {path.stem.removeprefix("tshirt-") for path in (plots / name).iterdir()}
        for name in ("training", "training-forget")
    )
    names = {name for name, *_ in ROWS}
    assert (retain, forget) == (names - {"neggrad"}, names - {"naive"})
    logged = io.read_csv(cells / "siss-05/0/training/training.csv")
    for loss, folder in (("retain", "training"), ("forget", "training-forget")):
        shown = io.read_csv(plots / folder / "tshirt-siss-05.csv")
        assert [line["loss"] for line in shown] == [line[f"loss_{loss}"] for line in logged]


def test_the_figure_of_losses_names_every_loss(built, tmp_path):
    task = collect.collect(built[1], built[0])[0]
    assert loss_curves.describe_losses(task) == "retain: on what is kept; forget: on what is forgotten"
    write_losses(tmp_path, ("adversary", "mine"), np.random.default_rng(0))
    log = loss_curves.read_log(collect.Cell("0", 0, tmp_path))
    assert list(log) == ["adversary", "mine"] and len(log["mine"].steps) == STEPS
    assert loss_curves.list_names({"a": log}) == ["adversary", "mine"]
    write_losses(tmp_path, (), np.random.default_rng(0))
    assert loss_curves.read_log(collect.Cell("0", 0, tmp_path)) == {}
    io.write_csv(tmp_path / "training/training.csv", [{"step": 0, "loss_a": 1.0}, {"step": 5}])
    assert loss_curves.read_log(collect.Cell("0", 0, tmp_path))["a"].steps == [0]


def test_an_absent_oracle_is_reported_with_its_reason(tmp_path):
    run = make_run(tmp_path)
    shutil.rmtree(tmp_path / "out/cells/tshirt/0/oracle/0")
    io.write_absence(tmp_path / "out/cells/tshirt/0/oracle/0/evaluation", "this task has no oracle")
    build.build(run, tmp_path)
    html = (tmp_path / "report/index.html").read_text()
    assert "this task has no oracle" in html
    lines = list(csv.reader((tmp_path / "results/metrics.csv").read_text().splitlines()))
    assert [
        "images",
        "tshirt",
        "0",
        "oracle",
        "0",
        "nll_forget",
        "",
        "",
        "",
        "0",
        "bits/dim",
        "up",
        "none",
        "this task has no oracle",
    ] in lines


def test_a_run_of_several_subjects_says_so(tmp_path):
    run = make_run(tmp_path, subjects=(0, 1))
    build.build(run, tmp_path)
    html = (tmp_path / "report/index.html").read_text()
    assert "the mean over 2 subjects" in html and "of several subjects, what varies between these besides" in html
    (task,) = collect.collect(run, tmp_path)
    assert task.row("siss-05").estimate("forget_rate").samples == 2048
    assert NFE["siss-05"] == tuple(
        task.row("siss-05").estimate(f"nfe_{way}_per_sample").value for way in ("forward", "backward")
    )


def test_a_run_of_nothing_has_all_its_files(tmp_path, built):
    shutil.copytree(built[0] / "reference", tmp_path / "reference")
    assert build.build(settings(), tmp_path).startswith("claims: 0 holds")
    for name in ("metrics.csv", "metrics.json", "figure.png", "plots/pareto.csv", "plots/training"):
        assert (tmp_path / "results" / name).exists(), name


def test_a_metric_that_is_not_registered_is_named(tmp_path):
    run = make_run(tmp_path)
    path = tmp_path / "out/cells/tshirt/0/naive/0/evaluation/metrics.json"
    io.write_json(path, io.read_json(path) | {"beauty_judge": absent("nobody looked")})
    with pytest.raises(Exception, match="'beauty_judge' is not registered"):
        build.build(run, tmp_path)


def test_hits_are_marked_and_shown_first(built):
    task = collect.collect(built[1], built[0])[0]
    chosen = pictures.choose_samples(task)
    assert chosen[:4] == [5, 20, 0, 1] and len(chosen) == pictures.SHOWN
    assert pictures.find_hits(task, pictures.read_base_samples(task)).sum() == 2


def test_large_images_shrink():
    assert pictures.shrink(np.full((2, 256, 256, 3), 7, np.uint8)).shape == (2, 64, 64, 3)


def test_sheets_are_tiled_on_grey():
    sheet = pictures.tile(np.zeros((2, 3, 4, 5, 1), np.uint8))
    assert sheet.shape == (9, 17, 1)
    assert (sheet == pictures.GREY).sum() == 9 * 17 - 2 * 3 * 4 * 5


def test_running_mean_of_a_constant_is_the_constant():
    assert figures.running_mean(np.full(57, 3.0)) == pytest.approx(np.full(57, 3.0))


def test_markdown_has_both_numbers(built):
    root, run, _ = built
    task = collect.collect(run, root)[0]
    papers = {table["id"]: table for table in read_tables(root / "reference")}
    table = tables.main_table(task, papers, read_mapping(root / "reference"))
    text = tables.markdown(table)
    assert len(text.splitlines()) == 2 + len(task.rows)
    assert re.search(r"\| siss-05 \| 8\.\d+ \[[\d.]+, [\d.]+\] · \*9\.2\* \|", text)
    assert "NLL of the forget image, bits/dim ↑" in text and "Forget rate" not in text, "p is counted, or no column"


class Page(HTMLParser):
    """Collect ids, references and images without alt text."""

    def __init__(self, text):
        super().__init__()
        self.ids = []
        self.targets = []
        self.bare = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.targets += [values[name] for name in ("src", "href", "xlink:href") if name in values]
        self.bare += tag == "img" and not values.get("alt")


def test_page_is_self_contained(built):
    text = (built[0] / "report/index.html").read_text()
    page = Page(text)
    assert not re.search(r"https?:|//cdn|@import|url\((?!#)", text)
    assert all(target.startswith(("data:", "#")) for target in page.targets)
    assert {t[1:] for t in page.targets if t.startswith("#")} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids) and page.bare == 0


def test_the_page_uses_the_field_s_words():
    text = (REPOSITORY / "src/palinode/report/page.html").read_text()
    assert not re.search(r"\b(family|T[0-4]|memoris\w+|in turn|empty prompt|stratum|prefix)\b", text, re.IGNORECASE)
