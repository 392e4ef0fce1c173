"""The search for each row's learning rate: the same grid for every row, on an image that is never reported.

Run with `make tune`, after `make repro`. The validation task has its own base model: the oracle, which has seen no
foreign picture, trained on until it has memorised the validation image. For every row each learning rate of the grid is
tried with one seed; a configuration is scored on the validation image and on samples of the tuning noise. Rule: of the
configurations that keep at least 95 % of the base model's Inception Score the one with the largest eps-error on the
image to forget; if none keeps it, the one with the largest Inception Score. The winners stand in params.yaml, the whole
search in results/tuning.csv; a test holds the two together.
"""

import subprocess
from pathlib import Path

import numpy as np

from palinode import judge, methods, models, params, sampling, stage
from palinode.data.splits import prepare
from palinode.errors import UserError
from palinode.io import atomic, read_array, read_json, write_csv, write_json
from palinode.metrics import forgetting, likelihood, quality
from palinode.metrics.features import JudgeBackbone
from palinode.scratch import Scratch
from palinode.training import Batches, train

TASK, JUDGE, ORACLE = "tshirt-val", Path("models/tshirt/judge"), Path("models/tshirt/oracle")
GRID = (6e-5, 2e-4, 6e-4, 2e-3, 2e-5)  # the last was added for all rows: the winners of three were the lowest
SAMPLES, LEVELS, DRAWS, KEPT = 256, 20, 8, 0.95
WORK, OUT = Path("out/tuning"), Path("results/tuning.csv")
COLUMNS = ("row", "lr", "steps", "eps_error_forget", "eps_error_held", "inception_score_judge", "hits", "chosen")


class Search:
    """The validation task's data, base model and measurements."""

    def __init__(self, loaded: params.Params):
        self.params, self.device = loaded, stage.device()
        self.task = loaded.tasks[TASK]
        self.key = (loaded.root_seed, TASK)
        self.data, self.base = WORK / "data", WORK / "base"
        if not self.data.exists():
            with atomic(self.data) as folder:
                prepare(self.task.data, folder)
        self.retain, self.forget = (read_array(self.data / f"{part}.npy") for part in ("retain", "forget"))
        if not self.base.exists():
            self.memorise()

    def memorise(self) -> None:
        """Train the oracle on the digits and the copies of the validation image, and save it as the base model."""
        model = models.load(ORACLE, self.device)
        images = np.concatenate([self.retain, *[self.forget] * self.task.data.copies])
        training = self.task.pretrain
        batches = Batches(images, images[:1], len(model.schedule), training.batch, 1, self.device, (*self.key, "base"))
        with Scratch("tuning-base", [ORACLE, self.data]) as scratch:
            train(model, methods.load("naive_deletion"), batches, training, scratch, f"base@{TASK}")
        models.save(model, self.base)

    def measure(self, model: models.Diffuser, name: str) -> dict[str, float]:
        """eps-error on the image to forget and on held-out images; Inception Score without hits; hits."""
        held = read_array(self.data / "reference.npy")[:32]
        with Scratch(f"tuning-{name}", [self.base]) as scratch:
            images = sampling.sample_all(model, self.key, SAMPLES, self.task.sample, scratch, f"sample {name}")
        hits = forgetting.hits(images, self.forget, read_json(self.data / "facts.json")["hit_distance"])
        logits = JudgeBackbone(judge.load(JUDGE)).logits(images)
        return {
            "eps_error_forget": float(likelihood.eps_error(model, self.forget, LEVELS, DRAWS, "forget").mean()),
            "eps_error_held": float(likelihood.eps_error(model, held, LEVELS, 1, "held").mean()),
            "inception_score_judge": quality.inception_score(logits, ~hits, splits=1, replicates=2).value,
            "hits": int(hits.sum()),
        }

    def trial(self, row: str, lr: float) -> dict:
        """Unlearn with one configuration and measure; a finished trial is read back."""
        chosen, name = self.params.rows[row], f"{row}-{lr:g}"
        file = WORK / f"{name}-{chosen.steps}.json"
        if file.exists():
            return read_json(file)
        training = params.Training(steps=chosen.steps, lr=lr, **self.task.unlearn.model_dump())
        model = models.load(self.base, self.device)
        key = (*self.key, "unlearn", 0)
        batches = Batches(self.retain, self.forget, len(model.schedule), training.batch, 1, self.device, key)
        with Scratch(f"tuning-train-{name}", [self.base]) as scratch:
            train(model, methods.load(chosen.method, chosen.options), batches, training, scratch, name)
        result = {"row": row, "lr": lr, "steps": chosen.steps} | self.measure(model, name)
        write_json(file, result)
        return result


def choose(trials: list[dict], base: dict[str, float]) -> dict:
    """The winner among one row's trials, by the rule above."""
    keeping = [t for t in trials if t["inception_score_judge"] >= KEPT * base["inception_score_judge"]]
    if keeping:
        return max(keeping, key=lambda t: t["eps_error_forget"])
    return max(trials, key=lambda t: t["inception_score_judge"])


def main() -> None:
    """Run the search and write results/tuning.csv; the winners are then copied to params.yaml by hand."""
    if subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "src", "params.yaml"]).returncode:
        raise UserError("commit src and params.yaml first, so that the search can be traced to a commit")
    loaded = params.load()
    search = Search(loaded)
    base = search.measure(models.load(search.base, search.device), "base")
    lines = [{"row": "base", **base}]
    for row in loaded.data.rows:
        trials = [search.trial(row, lr) for lr in GRID]
        winner = choose(trials, base)
        lines += [trial | {"chosen": int(trial is winner)} for trial in trials]
        print(f"{row}: lr {winner['lr']:g}", flush=True)
    write_csv(OUT, lines, COLUMNS)


if __name__ == "__main__":
    stage.main(main)
