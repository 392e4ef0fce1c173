"""README.md, docs/ and the pages of published runs say what results/ and dvc.yaml say."""

import json
import re
import textwrap
from pathlib import Path

import method_pages
import published
import pytest
import readme

from palinode.core.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
AGAIN = "is out of date: run `make readme`"
CHART = """flowchart TD
\tnode1["plan"]
\tnode2["prepare"]
\tnode3["report"]
\tnode1-->node2
\tnode1-->node3
\tnode2-->node3
"""
CSV = """kind,task,subject,row,seed,metric,value,lo,hi,n,unit,direction,interval,reason
images,tshirt,0,base,0,nll_forget,1.25,1.2,1.3,8,bits/dim,up,bootstrap,
images,tshirt,all,base,all,nll_forget,1.25,1.2,1.3,8,bits/dim,up,bootstrap,
images,tshirt,0,siss-05,0,nll_forget,6,5.5,6.5,8,bits/dim,up,bootstrap,
images,tshirt,0,siss-05,1,nll_forget,8,7.5,8.5,8,bits/dim,up,bootstrap,
images,tshirt,all,siss-05,all,nll_forget,7,-5.7,19.7,2,bits/dim,up,t,
images,tshirt,all,siss-05,all,forget_rate_counted,,,,0,fraction,down,none,no samples
"""
CLAIMS = [
    {
        "id": "one",
        "statement": "SISS 0.5 | No-IS",
        "table": "t",
        "task": "tshirt",
        "verdict": "fails",
        "share": 0.01,
        "published": True,
        "reason": "",
    },
    {
        "id": "two",
        "statement": "p falls",
        "table": "t",
        "task": "",
        "verdict": "untested",
        "share": None,
        "published": None,
        "reason": "too few samples",
    },
]
ENVIRONMENT = {
    "python": "3.11.2",
    "libraries": {"torch": "2", "diffusers": "0.4", "dvc": "3"},
    "cuda": None,
    "cpu": "a CPU",
    "threads": 2,
    "commit": "0" * 40,
}


def block(text: str, name: str) -> str:
    """What `readme.insert` put between the marks."""
    return text.partition(f"<!-- {name}:begin -->\n")[2].partition(f"\n<!-- {name}:end -->")[0]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A small published run in a repository with this project's reference tables."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / published.PUBLISHED / "digits"
    folder.mkdir(parents=True)
    (tmp_path / "reference").symlink_to(ROOT / "reference")
    (folder / "metrics.csv").write_text(CSV)
    (folder / "params.yaml").write_text("seeds: [0, 1]\nrows: {siss-05: {paper: siss_0.5}}\n")
    (folder / "COMMIT").write_text("0" * 40 + "\n")
    for name, value in (("claims", CLAIMS), ("environment", ENVIRONMENT), ("timings", {"`make repro`": 725.4})):
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def test_every_method_has_its_page():
    text = (ROOT / "METHODS.md").read_text(encoding="utf-8")
    assert text == method_pages.pages(ROOT), "METHODS.md is out of date: run `make readme`"
    files = [path.stem for path in (ROOT / "src/palinode/methods").glob("[a-z]*.py")]
    assert all(f"## `{name}`" in text for name in files) and "NLL of the forget image" in text


def test_generated_blocks_are_up_to_date():
    for path, blocks in readme.list_blocks(ROOT).items():
        text = (ROOT / path).read_text(encoding="utf-8")
        for name, wanted in blocks.items():
            assert block(text, name) == wanted, f"{path} {AGAIN}"


def test_pages_of_published_runs_are_up_to_date():
    assert {folder.name for folder in published.list_runs(ROOT)} >= readme.SHOWN.keys()
    for folder in published.list_runs(ROOT):
        assert (folder / "README.md").read_text(encoding="utf-8") == published.write_page(folder, ROOT), (
            f"{folder} {AGAIN}"
        )


def test_links_between_documents_lead_somewhere():
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("results/published/*/README.md")):
        for link in re.findall(r"\]\((?!http|#)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.relative_to(ROOT)}: {link}"


def test_a_run_s_page_has_numbers_claims_and_times(run):
    text = published.write_page(run)
    assert "# Run `digits`" in text and "seeds 0, 1" in text
    assert "| siss-05 | 7.00 [−5.70, 19.7] · *8.09* | – · *0* |" in text
    assert "| base | 1.25 [1.20, 1.30] · *1* | – · *0.74* |" in text
    assert "0 holds, 1 fails, 0 undecided, 0 by construction, 1 untested" in text
    assert "| SISS 0.5 \\| No-IS | `t` | true | fails | 1 % |" in text and "p falls" not in text
    assert "| `make repro` | 0:12:05 |" in text


def test_the_readme_has_some_columns_and_a_list_of_runs(run, monkeypatch):
    monkeypatch.setitem(readme.SHOWN, "digits", ("nll_forget",))
    text = readme.results(run.parents[2])
    assert "| base | 1.25 [1.20, 1.30] · *1* |\n" in text and "0.74" not in text
    assert "| `tshirt` | 1 | 0, 1 | `000000000000` | a CPU, 2 threads |" in text


@pytest.mark.parametrize("name", ["metrics.csv", "params.yaml", "COMMIT", "claims.json"])
def test_a_missing_file_is_named(run, name):
    (run / name).unlink()
    with pytest.raises(UserError, match=name):
        published.write_page(run)


def test_times_may_be_absent(run):
    (run / "timings.json").unlink()
    assert "No timings were recorded" in published.write_page(run)


def test_implied_edges_are_left_out():
    assert readme.reduce_chart(CHART) == "flowchart TD\n    plan --> prepare\n    prepare --> report\n"


def test_a_block_is_replaced_and_found_again():
    text = readme.insert("a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n", "x", "new\n\nlines")
    assert text == "a\n<!-- x:begin -->\nnew\n\nlines\n<!-- x:end -->\nb\n"
    assert block(text, "x") == "new\n\nlines"
    with pytest.raises(UserError, match="`y` are missing"):
        readme.insert(text, "y", "")


def test_its_python_draws_a_picture(monkeypatch):
    """With diffusers alone, from the shipped base, on a CPU."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    *lines, last = textwrap.dedent(code).strip().splitlines()
    monkeypatch.chdir(ROOT)
    names: dict = {}
    exec("\n".join(lines), names)
    assert eval(last, names).size == (32, 32)
