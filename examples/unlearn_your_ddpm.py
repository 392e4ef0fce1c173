"""Let a diffusers DDPM forget pictures with SISS in a plain PyTorch loop, without DVC or a parameter file. For example:

python examples/unlearn_your_ddpm.py models/tshirt/model data/fashion/tshirt.npy data/mnist/train.npy

Pictures are image files in a folder, or uint8 [N, H, W, C] in a .npy file. Those to keep are all others of the training
set. OUT/before-and-after.png shows pictures to forget, noised and restored by either model, and samples of both.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from palinode import methods
from palinode.core.contact_sheet import sheet, write_png
from palinode.core.images import to_model
from palinode.data import sources
from palinode.metrics.forgetting import denoise
from palinode.models import unconditional
from palinode.sampling.unprompted import sample_chunk
from palinode.training.batches import Batch, draw_noise, draw_rows

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for name in ("model", "forget", "keep"):
    parser.add_argument(name, type=Path)
parser.add_argument("--out", type=Path, default=Path("build/forgotten"), help="OUT/model is a DDPMPipeline")
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--batch", type=int, default=64, help="pictures a step, from each of the two sets")
parser.add_argument("--lr", type=float, default=2e-4, help="lower for larger models: the paper has 5e-6 for CelebA-HQ")


def main(options: argparse.Namespace) -> None:
    model = unconditional.load(options.model, "cuda" if torch.cuda.is_available() else "cpu")
    shape = (*model.shape[1:], model.shape[0])
    forget, keep = (np.stack(list(sources.read(path, shape)[1])) for path in (options.forget, options.keep))

    def draw() -> np.ndarray:
        restored = denoise(model, np.resize(forget, (8, *shape)), t=250, draws=1)
        return np.stack([restored, sample_chunk(model, (0, "example"), 0, 8, "ddim", 50)])

    before = draw()
    method = methods.load("siss", {"lam": 0.5, "ratio": 0.1})
    method.begin(model, {"seed": 0})
    parameters = model.trainable()
    optimizer = torch.optim.AdamW(parameters, options.lr)
    generator = torch.Generator().manual_seed(0)
    for step in range(options.steps):
        drawn = [images[draw_rows(len(images), options.batch, generator).numpy()] for images in (keep, forget)]
        x, a = (to_model(images).to(model.device) for images in drawn)
        t, eps = (v.to(model.device) for v in draw_noise(x.shape, len(model.schedule), generator))
        u = torch.rand(options.batch, generator=generator).to(model.device)
        losses = method.losses(model, Batch(x, a, t, eps, u, len(model.schedule), generator))
        gradients = {}
        for name, loss in losses.items():
            terms = loss + 0 * parameters[0].sum()  # a loss in which no picture of the batch takes part has no graph
            pieces = torch.autograd.grad(terms, parameters, retain_graph=True, materialize_grads=True)
            gradients[name] = torch.cat([piece.flatten() for piece in pieces])
        update, logged = method.combine(gradients)  # the method decides how they become one step
        for parameter, piece in zip(parameters, update.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = piece.view_as(parameter)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        method.after_step()
        print(step, {name: round(loss.item(), 2) for name, loss in losses.items()}, logged)
    unconditional.save(model, options.out / "model")
    write_png(options.out / "before-and-after.png", sheet(np.stack([before, draw()], 1).reshape(-1, *shape), 8), 4)


if __name__ == "__main__":
    main(parser.parse_args())
