"""A whole cell at tiny size: names, absences, pairing, resume."""

import numpy as np
import pytest
import torch

from palinode.classifiers import digits, storage
from palinode.core.scratch import Scratch
from palinode.metrics import features, image_metrics
from palinode.models import unconditional
from palinode.params.image_tasks import Evaluate

UNET = {"sample_size": 16, "in_channels": 1, "out_channels": 1, "block_out_channels": [8, 16], "layers_per_block": 1,
        "down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2, "norm_num_groups": 4}  # fmt: skip
SCHEDULER = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
SETTINGS = Evaluate(
    lpips_trunk=None, held=3, probes=2, ode_steps=2, eps_levels=4, eps_draws=2, denoise_from=10, denoise_draws=2,
    bootstrap=20, splits=2, kid_subset=40, batch=16,
)  # fmt: skip


def random_images(seed: int, n: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (n, 16, 16, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge") / "judge"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        storage.save(digits.Judge(16, 1, 10), folder, {})
    return folder


@pytest.fixture
def context(judge_folder):
    net = unconditional.create(UNET, SCHEDULER, seed=1)
    return image_metrics.Context(
        load_model=lambda: net, samples=random_images(0, 80), base=random_images(1, 80), oracle=random_images(2, 80),
        reference=random_images(3, 90), retain=random_images(5, 60), forget=random_images(4, 1),
        hit_distance=1.0, cost={"forward": 640, "backward": 320, "steps": 5}, settings=SETTINGS,
        judge=judge_folder,
    )  # fmt: skip


class SmallNetwork(features.JudgeBackbone):
    name = "efficientnet_lite0"

    def __init__(self, device: str):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            super().__init__(digits.Judge(16, 1, 10))


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    """The network of ImageNet costs seconds a test; it has a test of its own."""
    monkeypatch.setattr(features, "EfficientNetLite0", SmallNetwork)


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("PALINODE_SCRATCH", str(tmp_path))
    with Scratch("evaluate", []) as opened:
        yield opened


def test_every_metric_has_a_value_or_a_reason(context):
    before = torch.get_rng_state()
    metrics, by_network = image_metrics.evaluate_cell(context)
    assert torch.equal(torch.get_rng_state(), before)
    assert (
        set(by_network) == {"judge", "efficientnet_lite0"}
        and by_network["judge"].shape == (80, 64)
        and by_network["judge"].dtype == np.float32
    )
    absent = {name for name, metric in metrics.items() if metric.value is None}
    assert absent == {name for name in metrics if name.endswith(("lpips_alex", "sscd"))}
    assert all(metric.reason for name, metric in metrics.items() if name in absent)
    of_network = {f"{name}_efficientnet_lite0" for name in ("kid", "fid", "precision", "recall", "denoise_similarity")}
    assert of_network | {"nll_forget", "nll_held", "eps_error_forget", "eps_error_held", "forget_rate", "copy_rate",
            "copy_rate_forget", "copy_rate_held", "inception_score_judge",
            "kid_judge", "fid_judge", "precision_judge", "recall_judge", "denoise_similarity_judge", "integrity_judge",
            "denoise_similarity_ssim",
            "drift_judge", "integrity_ssim", "drift_ssim", "oracle_drift_judge", "oracle_similarity_judge",
            "nfe_forward", "nfe_backward"} == set(metrics) - absent  # fmt: skip
    assert metrics["nfe_forward"].value == 640 and metrics["nll_forget"].n == 2 and metrics["nll_held"].n == 3


def test_a_restored_image_is_like_itself_and_noise_is_not(context):
    context.restored = np.repeat(context.forget, 2, axis=0)
    assert image_metrics.PIECES["denoise_ssim"](context)["denoise_similarity_ssim"].value == pytest.approx(1)
    context.restored = random_images(9, 2)
    assert abs(image_metrics.PIECES["denoise_ssim"](context)["denoise_similarity_ssim"].value) < 0.2
    assert "no file of SSCD is set" in image_metrics.PIECES["denoise_sscd"](context)["denoise_similarity_sscd"].reason


def test_a_file_of_sscd_compares_restored_images_in_colour(context, monkeypatch):
    class Pixels:
        def __init__(self, path):
            assert path == "a file"

        def __call__(self, images):
            assert images.shape[1:] == (16, 16, 3)
            return torch.nn.functional.normalize(torch.tensor(images.reshape(len(images), -1) / 255 - 0.5), dim=1)

    monkeypatch.setattr(image_metrics, "SSCD", Pixels)
    context.settings = SETTINGS.model_copy(update={"sscd": "a file"})
    context.restored = np.concatenate([context.forget, 255 - context.forget])
    similarity = image_metrics.PIECES["denoise_sscd"](context)["denoise_similarity_sscd"]
    assert similarity.value == pytest.approx(0) and similarity.n == 2, "one is the image, one its negative"


def test_base_row_is_untouched_and_oracle_row_is_the_oracle(context):
    context.samples = context.base
    row = image_metrics.PIECES["integrity_judge"](context) | image_metrics.PIECES["integrity_ssim"](context)
    assert [row[name].value for name in ("integrity_judge", "drift_judge", "integrity_ssim", "drift_ssim")] == [
        1,
        0,
        1,
        0,
    ]
    context.samples = context.oracle
    assert image_metrics.PIECES["oracle"](context)["oracle_similarity_judge"].value == 1


def test_what_is_missing_is_said(context):
    context.load_model, context.oracle, context.cost = None, "no retrained model", "nothing was unlearned"
    context.judge, context.judge_reason = None, "the task names no judge"
    metrics, by_network = image_metrics.evaluate_cell(context)
    assert list(by_network) == ["efficientnet_lite0"]
    assert metrics["nll_forget"].reason == image_metrics.NO_MODEL == metrics["eps_error_held"].reason
    assert metrics["oracle_drift_judge"].reason == "no retrained model"
    assert metrics["nfe_backward"].reason == "nothing was unlearned"
    assert {metrics[name].reason for name in metrics if name.endswith("_judge") and "oracle" not in name} == {
        "the task names no judge"
    }
    assert (
        metrics["integrity_ssim"].value is not None and metrics["integrity_lpips_alex"].reason == image_metrics.NO_TRUNK
    )


def test_names_do_not_depend_on_what_is_missing(context):
    present, _ = image_metrics.evaluate_cell(context)
    context.load_model, context.judge, context.oracle, context.cost = None, None, "none", "none"
    del context.networks
    missing, _ = image_metrics.evaluate_cell(context)
    assert set(missing) == set(present)


def test_unpaired_samples_are_not_compared(context):
    context.samples = context.samples[:50]
    assert "50 samples do not pair with 80" in image_metrics.PIECES["integrity_ssim"](context)["integrity_ssim"].reason


def test_another_schedule_leaves_the_likelihood_out(context):
    net = unconditional.create(UNET, SCHEDULER | {"beta_schedule": "scaled_linear"}, seed=1)
    context.load_model = lambda: net
    metrics = image_metrics.PIECES["nll_held"](context)
    assert "linear schedule" in metrics["nll_held"].reason


def test_finished_pieces_are_not_computed_again(context, monkeypatch, scratch):
    pieces = {name: image_metrics.PIECES[name] for name in ("copies", "forget_rate", "integrity_judge")}
    monkeypatch.setattr(image_metrics, "PIECES", pieces)
    context.scratch = scratch
    whole, _ = image_metrics.evaluate_cell(context)
    assert {path.stem for path in scratch.folder.glob("*.json")} == set(pieces)
    monkeypatch.setattr(image_metrics, "PIECES", dict.fromkeys(pieces, print))  # would now give no metrics
    again, _ = image_metrics.evaluate_cell(context)
    assert {name: (m.value, m.lo, m.hi) for name, m in again.items()} == {
        name: (m.value, m.lo, m.hi) for name, m in whole.items()
    }


@pytest.mark.parametrize("piece", ["nll_forget", "nll_held", "denoise_judge"])
def test_a_long_piece_continues_where_it_was_cut_off(context, scratch, piece):
    """The pass in which it is cut off is the first of the half that is left; all before it are kept."""
    net, predict = context.model, context.model.predict
    context.settings = SETTINGS.model_copy(update={"ode_steps": 4, "denoise_from": 31})
    net.nfe["forward"] = 0
    whole, passes = image_metrics.PIECES[piece](context), net.nfe["forward"]
    context.scratch, net.nfe["forward"] = scratch, 0
    vars(context).pop("restored", None)

    def cut_off(*arguments):
        if net.nfe["forward"] >= passes // 2:
            raise KeyboardInterrupt
        return predict(*arguments)

    net.predict = cut_off
    with pytest.raises(KeyboardInterrupt):
        image_metrics.PIECES[piece](context)
    net.predict = predict
    vars(context).pop("restored", None)
    again = image_metrics.PIECES[piece](context)
    assert net.nfe["forward"] == passes
    assert {name: (m.value, m.lo, m.hi) for name, m in again.items()} == {
        name: (m.value, m.lo, m.hi) for name, m in whole.items()
    }


def test_copies_of_training_images_are_found(context, monkeypatch):
    context.samples = np.concatenate([context.forget, context.retain[:3], context.samples[4:]])
    rates = image_metrics.PIECES["copies"](context)
    assert rates["copy_rate"].value == 4 / 80 and rates["copy_rate_forget"].value == 1 / 80
    assert rates["copy_rate_held"].value == 0
    context.reference = np.concatenate([context.reference[:79], context.retain[:1]])
    assert image_metrics.PIECES["copies"](context)["copy_rate_held"].value == 1 / 80, "false alarms"
    monkeypatch.setattr(image_metrics.nearest, "LARGEST", 100)
    assert "not searched" in image_metrics.PIECES["copies"](context)["copy_rate_forget"].reason


def test_seed_rows_are_paired(context):
    one = image_metrics.PIECES["forget_rate"](context)["forget_rate"]
    context.samples = np.concatenate([context.forget, context.samples[1:]])
    del context.hits
    two = image_metrics.PIECES["forget_rate"](context)["forget_rate"]
    difference = two.replicates - one.replicates
    assert two.value == pytest.approx(1 / 80) and (difference >= 0).all() and difference.max() > 0
