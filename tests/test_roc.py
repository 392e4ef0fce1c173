"""ROC against a reference library, both conventions of TPR at 1 % FPR, held-out thresholds, and lists of prompts."""

import numpy as np
import pytest
import torch
from project import ROOT
from torchmetrics.functional.classification import binary_auroc, binary_roc

from palinode.core.errors import UserError
from palinode.data import prompt_lists
from palinode.data.prompt_lists import Prompt
from palinode.data.scenes import EmojiCorpus
from palinode.memorization import roc
from palinode.memorization.detectors import Cost


def curve(scores, positive):
    scores, positive = np.asarray(scores, float), np.asarray(positive, bool)
    return roc.roc(scores, positive, np.ones((1, len(scores)), int))


def test_curve_and_area_are_those_of_the_reference_library():
    rng = np.random.default_rng(0)
    positive = rng.random(300) < 0.2
    scores = np.round(rng.normal(size=300) + positive, 1)  # with ties
    scaled = torch.from_numpy((scores - scores.min()) / np.ptp(scores))  # the library squashes what is not in [0, 1]
    wanted_fpr, wanted_tpr, _ = binary_roc(scaled, torch.from_numpy(positive).int())
    (fpr,), (tpr,) = curve(scores, positive)
    assert np.allclose(fpr, wanted_fpr, atol=1e-6) and np.allclose(tpr, wanted_tpr, atol=1e-6)
    wanted = float(binary_auroc(scaled, torch.from_numpy(positive).int()))
    assert roc.auc(*curve(scores, positive))[0] == pytest.approx(wanted, abs=1e-6)


def test_weights_count_repeated_prompts():
    scores, positive = np.array([3.0, 2.0, 2.0, 1.0, 0.0]), np.array([1, 0, 1, 1, 0], bool)
    weights = np.array([[2, 1, 0, 1, 3], [1, 1, 1, 1, 1]])
    repeated = np.repeat(np.arange(5), weights[0])
    fpr, tpr = roc.roc(scores, positive, weights)
    wanted = roc.auc(*curve(scores[repeated], positive[repeated]))
    assert roc.auc(fpr, tpr)[0] == pytest.approx(wanted[0])
    assert roc.auc(fpr, tpr)[1] == pytest.approx(4 / 6 + 0.5 / 6)  # of 6 pairs 4 in order, 1 tied
    assert not fpr[:, 0].any() and not tpr[:, 0].any() and (fpr[:, -1] == 1).all() and (tpr[:, -1] == 1).all()


def test_the_two_conventions_of_tpr_differ_where_1_percent_is_few_prompts():
    """60 negatives, so that one false alarm is 1.7 %: of 10 positives 6 lie above it, 3 directly below."""
    scores = [*np.arange(6) + 20, 10, *np.arange(3) + 5, *np.zeros(59), -1]
    positive = [1] * 6 + [0] + [1] * 3 + [0] * 59 + [1]
    fpr, tpr = curve(scores, positive)
    assert roc.tpr_below(fpr, tpr)[0] == 0.6
    assert roc.tpr_closest(fpr, tpr)[0] == 0.6, "1/60 is closer to 1 % than 0 is, and its first point has a TPR of 0.6"
    scores[5] = 9  # now below the false alarm
    fpr, tpr = curve(scores, positive)
    assert (roc.tpr_below(fpr, tpr)[0], roc.tpr_closest(fpr, tpr)[0]) == (0.5, 0.5)
    scores[5] = 10  # tied with it
    fpr, tpr = curve(scores, positive)
    assert (roc.tpr_below(fpr, tpr)[0], roc.tpr_closest(fpr, tpr)[0]) == (0.5, 0.6)


def labelled(kinds: dict[str, int]) -> list[Prompt]:
    return [Prompt(f"{kind} {i}", kind) for kind, count in kinds.items() for i in range(count)]


KNOWN = {"verbatim": 20, "template": 20, "control": 20, "ordinary": 100, "unlabelled": 5}


def test_kinds_are_evaluated_apart_and_together():
    asked = labelled(KNOWN)
    scores = np.array([{"verbatim": 3.0, "template": 1.0, "control": 2.0}.get(prompt.kind, 0.0) for prompt in asked])
    result = roc.evaluate(scores, asked)
    assert result["verbatim"]["auc"]["value"] == 1 and result["verbatim"]["auc"]["n"] == 120
    assert result["template"]["auc"]["value"] == 1
    assert result["all"]["auc"]["value"] == pytest.approx((1 + 100 / 120) / 2)
    assert result["controls"]["auc"]["value"] == 0.5 and result["ordinary"]["auc"]["value"] == 1
    entry = result["all"]["auc"]
    assert entry["lo"] < entry["value"] < entry["hi"] and entry["interval"] == "bootstrap" and entry["n"] == 160
    assert result["all"]["tpr_below"]["value"] == 0.5
    table = roc.table({"one": scores}, asked, {"one": Cost(2, jvps=1)}, 4)
    assert table["prompts"] == KNOWN and table["scores"]["one"] == result | {"nfe": 16, "jvps": 8}


def test_thresholds_are_chosen_on_one_half_and_tried_on_the_other():
    asked = labelled({"verbatim": 40, "ordinary": 100})
    scores = np.array([1.0 if prompt.kind == "verbatim" else 0.0 for prompt in asked])
    result = roc.try_threshold(scores, asked)
    assert result["threshold"] == 0.5 and result["accuracy"] == 1
    assert 8 < result["tpr"]["n"] < 32 and 30 < result["fpr"]["n"] < 70, "halves by a hash of the prompt"
    second = np.array([roc.seeds.derive("half", prompt.text) % 2 for prompt in asked], bool)
    wrong = roc.try_threshold(np.where(second, 1 - scores, scores), asked)
    assert (wrong["threshold"], wrong["accuracy"]) == (0.5, 0), "the other half has no say in the threshold"


def test_what_is_missing_is_said():
    scores = np.arange(10.0)
    result = roc.evaluate(scores, labelled({"ordinary": 10}))
    assert result["all"]["auc"]["value"] is None
    assert result["all"]["auc"]["reason"] == "no prompt is known to be memorized"
    assert result["held_out"]["reason"].endswith("in one half of the prompts")
    result = roc.evaluate(scores, labelled({"template": 10}))
    assert result["template"]["auc"]["reason"] == "no prompt is known not to be memorized"
    assert result["verbatim"]["auc"]["value"] is None


def test_the_shipped_ground_truth():
    prompts = prompt_lists.of_corpus(EmojiCorpus.read(ROOT / "data/emoji"))
    counts = {kind: sum(prompt.kind == kind for prompt in prompts) for kind in prompt_lists.KINDS}
    assert counts["verbatim"] == counts["template"] == 16 and counts["control"] == 32
    assert counts["ordinary"] == 320 and len({prompt.text for prompt in prompts}) == len(prompts)


def test_a_list_of_prompts_is_read(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text('\ufeffprompt,kind\n"a cat, on blue",ordinary\n une été ,\n', encoding="utf-8")
    assert prompt_lists.read(path) == [Prompt("a cat, on blue", "ordinary"), Prompt("une été", "unlabelled")]
    path.write_text("prompt\na cat\n", encoding="utf-8")
    assert prompt_lists.read(path) == [Prompt("a cat", "unlabelled")]


@pytest.mark.parametrize(
    "content,words",
    [
        (None, "missing prompt list: .*prompts.csv"),
        (b"", "lists no prompt"),
        (b"prompt,kind\n", "lists no prompt"),
        (b"caption\na cat\n", "has no column `prompt`"),
        (b"prompt\ncaf\xe9\n", r"is not UTF-8 \(byte 10\)"),
        (b"prompt,kind\na cat,ordinary\n ,control\n", "prompt 2 is empty"),
        (b"prompt,kind\na cat,memorized\n", "unknown kind 'memorized' of 'a cat'; there are verbatim, template"),
        (b"prompt\na cat\na dog\na cat\n", r"1 prompt\(s\) are listed twice, such as 'a cat'"),
        (b'prompt\n"a cat\n', "cannot read .*unexpected end of data"),
    ],
)
def test_a_bad_list_of_prompts_is_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "prompts.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words) as raised:
        prompt_lists.read(path)
    assert "\n" not in str(raised.value)
