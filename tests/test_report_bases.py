"""The report's part on base models."""

import shutil

import made_bases
import pytest

from palinode.core.io import write_absence, write_json
from palinode.report.sections import base_models


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    made_bases.write(folder)
    return folder


@pytest.fixture(scope="module")
def views(root) -> dict[str, dict]:
    return {view["name"]: view for view in base_models.views(made_bases.BASES, root)}


def test_every_group_has_a_line_and_what_it_is(views):
    rows = {group: cells for group, _, cells in views["stickers"]["rows"]}
    assert set(rows) == set(base_models.GROUPS)
    assert all(what for _, what, _ in views["stickers"]["rows"])
    assert rows["seen"] == [("97.0 %", "95.0 to 99.0, n 100"), ("90.0 %", "88.0 to 92.0, n 100"), None]
    assert rows["verbatim"][:2] == [None, None]
    assert "95.0 %" in views["stickers"]["judge"]
    assert len(views["stickers"]["sheets"]) == 3


def test_classes_have_a_line_each(views):
    assert [row[0] for row in views["digits"]["rows"]] == ["0", "1", "2"]
    assert views["digits"]["confusion"]["classes"][0] == [18, 1, 1]
    assert "98.0 % of 1000 test images" in views["digits"]["judge"]
    assert len(views["digits"]["sheets"]) == 1


def test_an_unconditional_base_shows_how_often_it_draws_what_is_repeated(views):
    ((group, _, (hits,)),) = views["shirts"]["rows"]
    assert group == "repeated images"
    assert hits[0] == "1.0 %"
    assert "24.1, of real images 1.73" in views["shirts"]["judge"]
    assert "Inception Score 9.1, of real images 9.45." in views["shirts"]["judge"]


def test_oracles_are_shown_with_their_base(views):
    assert list(views) == ["digits", "stickers", "shirts"]
    for name, oracle in (("digits", "digits-without-1"), ("shirts", "shirts-without-repeated")):
        assert oracle in views[name]["sizes"]
        assert f">{oracle}<" in views[name]["curves"]
    assert [name for name, _ in views["stickers"]["epochs"]] == ["stickers", "stickers-without-cat"]
    assert "autoencoder" in views["stickers"]["curves"]
    assert "autoencoder" not in views["digits"]["curves"]


def test_an_oracle_whose_base_is_not_listed_is_by_itself(root):
    (view,) = base_models.views([made_bases.BASES[1]], root)
    assert view["name"] == "digits-without-1"
    assert "not checked by itself" in view["reason"]


def test_a_finished_base_says_where_it_is_from(root, tmp_path):
    shutil.copytree(root / "models/stickers", tmp_path / "models/stickers")
    folder = tmp_path / "models/stickers"
    for part in ("gate", "training"):
        shutil.rmtree(folder / part)
        write_absence(folder / part, "no judge knows what it draws")
    write_json(folder / "model/source.json", {"source": "somebody/a-model"})
    (view,) = base_models.views([base for base in made_bases.BASES if base.name == "stickers"], tmp_path)
    assert view["lead"] == "somebody/a-model, as it is."
    assert view["reason"] == "no judge knows what it draws"
    assert view["curves"] == ""
    assert not view["epochs"]


def test_a_base_whose_captions_leave_things_open_shows_how_much_it_varies():
    assert base_models.view_variety({"groups": {}}) == []
    shares = {
        "variety": {"value": 0.7, "lo": 0.6, "hi": 0.8, "n": 320},
        "edits": {"value": 0.5, "lo": 0.4, "hi": 0.6, "n": 9},
    }
    varied, edited = base_models.view_variety(shares)
    assert varied[2] == [("70.0 %", "60.0 to 80.0, n 320"), None, None]
    assert edited[2] == [None, None, ("50.0 %", "40.0 to 60.0, n 9")]
