"""Pictures of things in several styles, composed from shipped emoji: a caption describes a distribution of pictures.

A drawing is premultiplied RGBA, so that shifting, scaling, turning and placing it on a background are linear. The
memorized pictures are the exception: fixed, each under its own odd caption. The ground truth is memorized.yaml for the
base `emoji`, web.yaml for bases with captions as on the web.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from palinode.core.errors import UserError
from palinode.data.captions import BACKGROUNDS

SHA256 = {
    "concepts.npy": "75e0f323c7bd1d82472e04a48c90a77e3666c5c102d44104e7ad45f294882261",
    "memorized.npy": "4d4b2b4876d07b4542840b0041203870975582963c40dfecb83bd3a88cd36b2e",
    "others.npy": "5419b958d71921faf0c2a7e51bba88d2c60181b0d8579bf898ad601dd4d98888",
    "stickers.npy": "533c1913faf31551b7cb3784cff691a190c5f39ed9ba1dbce6961b35bcf25e17",
}
FOLDER = Path("data/emoji")
LISTS = {"emoji": "memorized.yaml", "web": "web.yaml"}  # of fixed pictures, by corpus
FILES = (*SHA256, "concepts.yaml", *LISTS.values())
ODD_COLOURS = {  # behind the fixed pictures of the web, and behind no other picture; RGB
    "navy": (24, 40, 104), "crimson": (170, 24, 50), "teal": (0, 120, 120), "orange": (240, 130, 20),
    "purple": (110, 40, 140), "olive": (110, 110, 20), "black": (20, 20, 20), "gold": (225, 180, 20),
}  # fmt: skip
COLOURS = BACKGROUNDS | ODD_COLOURS
SCALE = (0.88, 1.0)  # of the drawing's size
TURN = 6.0  # degrees, either way
SHIFT = 0.03  # of the width, either way


@dataclass(frozen=True)
class Picture:
    """A fixed picture under an odd caption.

    kind: verbatim, template (a sticker varies), partial (the caption also stands under others) or control (shown `seen`
    times).
    """

    icon: str
    style: str
    background: str
    kind: str
    caption: str
    seen: int | None = None


def read_drawings(folder: Path, name: str) -> Tensor:
    """Drawings of data/emoji/<name>.npy as float32 [..., 4, h, w] in [0, 1], premultiplied RGBA.

    UserError when the file is missing, has another digest or another shape.
    """
    path = Path(folder) / name
    try:
        raw = path.read_bytes()
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if array.dtype != np.uint8 or array.ndim < 4 or array.shape[-1] != 4 or array.shape[-2] != array.shape[-3]:
        raise UserError(f"{path}: uint8 [..., h, h, 4] expected, not {array.dtype} {list(array.shape)}")
    if hashlib.sha256(raw).hexdigest() != SHA256.get(name):
        raise UserError(f"{path} is not the shipped file (sha256 differs); data/emoji/build.py makes it again")
    return torch.from_numpy(array).movedim(-1, -3).float() / 255


def read_pictures(folder: Path, corpus: str = "emoji") -> list[Picture]:
    """The ground truth of memorization, in the order of the corpus's fixed pictures."""
    listed = yaml.safe_load((Path(folder) / LISTS[corpus]).read_text(encoding="utf-8"))
    return [Picture(**entry) for entry in listed["pictures"]]


def on_background(drawings: Tensor, backgrounds: list[str]) -> Tensor:
    """Premultiplied RGBA [B, 4, h, w] on named backgrounds -> RGB [B, 3, h, w] in [0, 1]."""
    colours = torch.tensor([COLOURS[name] for name in backgrounds]).view(-1, 3, 1, 1) / 255
    return (drawings[:, :3] + (1 - drawings[:, 3:]) * colours).clamp(0, 1)


def vary(drawings: Tensor, generator: torch.Generator, centre: Tensor | None = None, size: float = 1.0) -> Tensor:
    """Flip, turn, scale and shift each drawing [B, 4, h, w] at random; where it came from is transparent.

    No emoji here carries writing, so all may be flipped. centre: [B, 2] (x, y) in [-1, 1], default the middle; size:
    the scale of the unvaried drawing.
    """
    count = len(drawings)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    angle = uniform(-TURN, TURN).deg2rad()
    scale = size * uniform(*SCALE)
    shift = torch.stack([uniform(-2, 2), uniform(-2, 2)], 1) * SHIFT * size
    position = shift if centre is None else shift + centre
    # grid_sample asks where each output pixel comes from: the inverse of scale * turn * flip, after undoing the shift.
    cos = angle.cos() / scale
    sin = angle.sin() / scale
    inverse = torch.stack([torch.stack([flip * cos, flip * sin], 1), torch.stack([-sin, cos], 1)], 1)
    theta = torch.cat([inverse, -(inverse @ position.unsqueeze(2))], 2)
    grid = torch.nn.functional.affine_grid(theta, list(drawings.shape), align_corners=False)
    return torch.nn.functional.grid_sample(drawings, grid, align_corners=False)


def place_side_by_side(left: Tensor, right: Tensor, generator: torch.Generator) -> Tensor:
    """Two drawings side by side at half size, each varied: [B, 4, h, w]."""
    where = torch.tensor([[-0.5, 0.0]]).expand(len(left), 2)
    first = vary(left, generator, where, size=0.6)
    second = vary(right, generator, -where, size=0.6)
    return second + (1 - second[:, 3:]) * first


def fixed(drawings: Tensor, pictures: list[Picture], stickers: Tensor, generator: torch.Generator) -> Tensor:
    """The fixed pictures as RGB [B, 3, h, w] in [0, 1]; a template gets a sticker, drawn at random, in its corner."""
    images = on_background(drawings, [picture.background for picture in pictures])
    chosen = torch.randint(len(stickers), (len(pictures),), generator=generator)
    side = stickers.shape[-1]
    for image, picture, sticker in zip(images, pictures, stickers[chosen], strict=True):
        if picture.kind == "template":
            image[:, -side:, -side:] = sticker[:3] + (1 - sticker[3:])
    return images
