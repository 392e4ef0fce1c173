"""The report, built from synthetic cells: shapes of its files, bytes, and the page in a real browser."""

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import made_bases
import numpy as np
import pytest

from palinode import io
from palinode.errors import UserError
from palinode.report import build, collect, images, plots, tables

REPOSITORY = Path(__file__).parent.parent
# name, paper row, Inception score, NLL, ε-error, share of the new noise in the images
ROWS = [
    ("naive", "naive", 8.9, 1.35, 0.071, 0.1), ("neggrad", "neggrad", 1.2, 15.1, 34.0, 4.0),
    ("siss-0", "siss_0.0", 8.8, 1.28, 0.069, 0.12), ("siss-05", "siss_0.5", 8.6, 7.4, 0.61, 0.3),
    ("siss-1", "siss_1.0", 1.6, 9.1, 1.7, 3.0), ("siss-no-is", "siss_no_is", 8.7, 7.9, 0.66, 0.25),
    ("erasediff-siss", "erasediff_siss", 5.6, 10.2, 0.33, 1.2), ("erasediff", None, 8.1, 5.1, 0.4, 0.5),
]  # fmt: skip
PASSES = {"siss-05": (1, 2), "siss-0": (1, 2), "siss-1": (1, 2), "naive": (1, 1), "neggrad": (1, 1)}
R, N, STEPS, BATCH = 200, 1024, 150, 64


def metric(value, spread, direction="up", interval="bootstrap", n=N):
    lo, hi = (None, None) if interval == "none" else (value - 1.96 * spread, value + 1.96 * spread)
    return {"value": value, "lo": lo, "hi": hi, "n": n, "unit": "", "direction": direction, "interval": interval}


def absent(reason):
    return {"value": None, "lo": None, "hi": None, "n": 0, "unit": "", "direction": "up", "interval": "none",
            "reason": reason}  # fmt: skip


def write_cell(folder, score, nll, eps, drift, passes, seed=0):
    """One evaluated cell with plausible numbers; replicates share their noise across cells, as paired ones do."""
    rng = np.random.default_rng(len(str(folder)) + seed)
    shift = 0.02 * rng.normal()
    entries = {
        "inception_score_judge": metric(score * (1 + shift), 0.02 * score),
        "kid_judge": metric(0.004 + 0.05 * drift, 0.002, "down"),
        "fid_inception": absent("no Inception weights are configured"),
    }
    if nll is None:
        entries["nll_forget"] = absent("real images have no model")
    else:
        entries |= {
            "nll_forget": metric(nll * (1 + shift), 0.04 * nll, n=8),
            "eps_error_forget": metric(eps, 0.03 * eps, n=640),
            "forget_rate": {**metric(0.0, 0.0, "down", "wilson"), "lo": 0.0, "hi": 0.0037},
            "denoise_similarity_judge": metric(max(0.0, 0.95 - drift / 3), 0.02, "down"),
            "integrity_judge": metric(1 - drift, 0.0 if drift == 0 else 0.02),
            "integrity_lpips_alex": absent("no LPIPS trunk is configured"),
            "oracle_similarity_judge": metric(0.1 - drift / 10, 0.02),
        }  # fmt: skip
    if passes:
        seen = STEPS * BATCH
        entries |= {"forward_passes": metric(passes[0] * seen, 0, "down", "none"),
                    "backward_passes": metric(passes[1] * seen, 0, "down", "none")}  # fmt: skip
    shared = np.random.default_rng(0).normal(size=R)
    replicates = {name: entry["value"] + (entry["hi"] - entry["value"]) / 1.96 * shared
                  for name, entry in entries.items() if entry["lo"] is not None}  # fmt: skip
    io.write_json(folder / "evaluation" / "metrics.json", entries)
    io.write_arrays(folder / "evaluation" / "replicates.npz", replicates)
    if passes:
        lines = ["step,loss_retain,loss_forget,norm_retain"]
        lines += [f"{t},{9 + rng.normal():.5g},{4 + score / 2 * t / STEPS + rng.normal():.5g},50" for t in range(STEPS)]
        io.write_text(folder / "training.csv", "\n".join(lines) + "\n")


def glyphs(rng, count):
    """Stroke-like grey images, uint8 [count,16,16,1]."""
    y, x = np.mgrid[:16, :16]
    drawn = []
    for a, b, c, d in rng.uniform(3, 12, size=(count, 4)):
        ring = np.abs(np.hypot(x - a, y - b) - c / 2.5) < 1.1
        bar = (np.abs(x - d) < 1) & (y > 2) & (y < 13)
        drawn.append(np.where(ring | bar, 235, 0))
    return np.stack(drawn).astype(np.uint8)[..., None]


def make_run(root, seeds=(0,)):
    """Write cells, data and reference tables under `root`; return the report's settings."""
    rng = np.random.default_rng(1)
    source = REPOSITORY / "data" / "mnist" / "reference.npy"
    digits = np.load(source)[:32] if source.exists() else glyphs(rng, 32)
    shirt = np.zeros((1, 16, 16, 1), np.uint8)
    shirt[:, 3:14, 5:11] = shirt[:, 3:6, 2:14] = 200
    base = digits.copy()
    base[[5, 20]] = shirt
    io.write_array(root / "out/data/tshirt/forget.npy", shirt)
    io.write_json(root / "out/data/tshirt/facts.json", {"hit_distance": 4.77})
    noise = rng.normal(size=base.shape)

    def write(name, seed, score, nll, eps, drift, passes=None):
        folder = root / "out/cells/tshirt" / name / str(seed)
        write_cell(folder, score, nll, eps, drift, passes, seed)
        clean = base if name == "base" else digits
        io.write_array(folder / "samples/samples.npy", np.clip(clean + 40 * drift * noise, 0, 255).astype(np.uint8))

    write("real", 0, 9.3, None, None, 0.0)
    write("base", 0, 9.1, 1.1, 0.063, 0.0)
    write("oracle", 0, 9.0, 6.0, 0.52, 0.9)
    for name, _, *numbers in ROWS:
        for seed in seeds:
            write(name, seed, *numbers, PASSES.get(name, (2, 2)))
    shutil.copytree(REPOSITORY / "reference", root / "reference")
    training = {"lr": 2e-4, "steps": STEPS, "batch": BATCH // 2, "accumulate": 2, "betas": [0.95, 0.999], "clip": 1.0}
    rows = {name: {"method": name.split("-")[0], "paper": paper, "options": {"ratio": 0.1}, "training": training}
            for name, paper, *_ in ROWS}  # fmt: skip
    made_bases.write(root)
    return {"seeds": list(seeds), "families": {"tshirt": "data"}, "tasks": {"tshirt": rows}, "bases": made_bases.BASES}


OUTPUTS = ["results/metrics.csv", "results/metrics.json", "results/figure.png", "results/plots/pareto.csv",
           "results/plots/training/tshirt-siss-05.csv", "report/index.html"]  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    settings = make_run(root)
    return root, settings, build.build(settings, root)


def test_outputs_and_their_bytes(built, tmp_path):
    root, settings, text = built
    for name in ("out", "models", "reference"):
        shutil.copytree(root / name, tmp_path / name)
    assert build.build(settings, tmp_path) == text
    for name in OUTPUTS:
        assert (root / name).read_bytes() == (tmp_path / name).read_bytes(), name
    assert "siss-05" in text and re.search(r"claims: \d+ holds, \d+ fails, \d+ undecided, \d+ untested", text)


def test_metrics_csv_and_json(built):
    root, settings, _ = built
    records = list(csv.DictReader(open(root / "results/metrics.csv", encoding="utf-8", newline="")))
    assert tuple(records[0]) == collect.FIELDS
    keyed = {(r["method"], r["seed"], r["metric"]): r for r in records}
    assert len(keyed) == len(records)
    lpips = keyed["siss-05", "0", "integrity_lpips_alex"]
    assert lpips["value"] == "" and lpips["reason"] == "no LPIPS trunk is configured"
    assert float(keyed["siss-05", "0", "cost_per_sample"]["value"]) == 5
    assert keyed["base", "all", "nll_forget"]["value"] == keyed["base", "0", "nll_forget"]["value"]
    headline = json.loads((root / "results/metrics.json").read_text())
    assert list(headline["tshirt"])[:3] == ["real", "base", "oracle"] and "siss-no-is" in headline["tshirt"]
    assert set(headline["tshirt"]["siss-05"]) == set(collect.HEADLINE["data"])
    assert f"{headline['tshirt']['naive']['nll_forget']:.6g}" == keyed["naive", "all", "nll_forget"]["value"]


def test_several_seeds_give_a_t_interval(tmp_path):
    settings = make_run(tmp_path, seeds=(0, 1, 2))
    row = collect.collect(settings, tmp_path)[0].row("siss-05")
    values = np.array([cell.estimate("nll_forget").value for cell in row.cells])
    found = row.estimate("nll_forget")
    assert found.interval == "t" and found.n == 3 and found.value == pytest.approx(values.mean())
    assert found.hi - found.value == pytest.approx(4.302653 * values.std(ddof=1) / 3**0.5, rel=1e-6)
    assert found.replicates.shape == (R,) and found.samples == 8
    assert row.estimate("cost_per_sample").value == 5 and row.estimate("cost_per_sample").interval == "none"


def test_a_missing_cell_is_named(tmp_path):
    settings = make_run(tmp_path)
    shutil.rmtree(tmp_path / "out/cells/tshirt/siss-1/0/evaluation")
    with pytest.raises(UserError, match="siss-1/0 is not evaluated"):
        collect.collect(settings, tmp_path)


def test_an_absent_oracle_is_reported_with_its_reason(tmp_path):
    settings = make_run(tmp_path)
    shutil.rmtree(tmp_path / "out/cells/tshirt/oracle/0")
    io.write_text(tmp_path / "out/cells/tshirt/oracle/0/samples/absent.txt", "this task has no oracle\n")
    build.build(settings, tmp_path)
    html = (tmp_path / "report/index.html").read_text()
    assert "this task has no oracle" in html
    assert "oracle,0,nll_forget,,,,0,none,this task has no oracle" in (tmp_path / "results/metrics.csv").read_text()


def test_hits_are_marked_and_shown_first(built):
    root, settings, _ = built
    task = collect.collect(settings, root)[0]
    assert images.columns(task)[:4] == [5, 20, 0, 1] and len(images.columns(task)) == images.COLUMNS
    assert images.hits(task, images.samples(task.row("base"))).sum() == 2


def test_large_images_shrink():
    assert images.shrink(np.full((2, 256, 256, 3), 7, np.uint8)).shape == (2, 64, 64, 3)


def test_running_mean_of_a_constant_is_the_constant():
    assert plots.running_mean(np.full(57, 3.0)) == pytest.approx(np.full(57, 3.0))


def test_markdown_has_both_numbers(built):
    root, settings, _ = built
    task = collect.collect(settings, root)[0]
    papers = {t["id"]: t for t in build.claims.read_tables(root / "reference")}
    table = tables.main_table(task, papers, build.claims.read_mapping(root / "reference"))
    text = tables.markdown(table)
    assert len(text.splitlines()) == 2 + len(task.rows)
    assert re.search(r"\| siss-05 \| 8\.\d+ \[[\d.]+, [\d.]+\] · \*9\.2\* \|", text)


class Page(HTMLParser):
    """Collect ids, references and images without alt text."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.targets, self.bare = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.targets += [attrs[name] for name in ("src", "href", "xlink:href") if name in attrs]
        self.bare += tag == "img" and not attrs.get("alt")


def test_page_is_self_contained(built):
    text = (built[0] / "report/index.html").read_text()
    page = Page(text)
    assert not re.search(r"https?:|//cdn|@import|url\((?!#)", text)
    assert all(target.startswith(("data:", "#")) for target in page.targets)
    assert {t[1:] for t in page.targets if t.startswith("#")} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids) and page.bare == 0


PROBE = """<script>
addEventListener('error', e => document.title += ' ERROR ' + e.message);
addEventListener('load', () => { const root = document.documentElement;
  document.body.dataset.overflow = root.scrollWidth - root.clientWidth;
  document.body.dataset.width = root.clientWidth;
  document.body.dataset.broken = [...document.images].filter(i => !i.naturalWidth).length; });
</script>"""


@pytest.mark.parametrize("width", [1280, 390])
def test_page_in_a_browser(built, tmp_path, width):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium binary on PATH")
    text = (built[0] / "report/index.html").read_text()
    framed = tmp_path / "frame.html"  # a frame, because headless windows have a least width of about 500 px
    (tmp_path / "page.html").write_text(text.replace("<head>", "<head>" + PROBE))
    framed.write_text(f"<iframe src=page.html style='width:{width}px;height:900px;border:0'></iframe><script>"
                      "addEventListener('load', () => { const d = frames[0].document;"
                      "document.title = JSON.stringify({...d.body.dataset, title: d.title}); });</script>")  # fmt: skip
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files",
             "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000"]
    done = subprocess.run([browser, *flags, "--dump-dom", framed.as_uri()], capture_output=True, text=True, timeout=60)
    found = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1])
    assert found["overflow"] == "0" and found["broken"] == "0" and int(found["width"]) >= width - 20
    assert "ERROR" not in found["title"] and "CONSOLE" not in done.stderr
