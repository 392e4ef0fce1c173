"""The report's part on base models."""

import made_bases
import pytest

from palinode.report import bases


@pytest.fixture(scope="module")
def views(tmp_path_factory) -> dict[str, dict]:
    root = tmp_path_factory.mktemp("bases")
    made_bases.write(root)
    return {view["name"]: view for view in bases.views(made_bases.BASES, root)}


def test_every_group_has_a_line_and_what_it_is(views):
    rows = {group: cells for group, _, cells in views["stickers"]["rows"]}
    assert set(rows) == set(bases.GROUPS) and all(what for _, what, _ in views["stickers"]["rows"])
    assert rows["seen"] == [("97.0 %", "95.0 to 99.0, n 100"), ("90.0 %", "88.0 to 92.0, n 100"), None]
    assert rows["verbatim"][:2] == [None, None] and "95.0 %" in views["stickers"]["judge"]


def test_classes_have_a_line_each(views):
    assert [row[0] for row in views["digits"]["rows"]] == ["0", "1", "2"]
    assert views["digits"]["confusion"]["classes"][0] == [18, 1, 1]
    assert "98.0 % of 1000 test images" in views["digits"]["judge"]


def test_training_is_shown_for_every_model(views):
    for view in views.values():
        assert [role for role, _ in view["epochs"]] == ["base", "without-one"] and "without-one" in view["curves"]
    assert "autoencoder" in views["stickers"]["curves"] and "autoencoder" not in views["digits"]["curves"]
