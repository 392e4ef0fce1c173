"""Rebuild the emoji arrays from the pinned icon packages: build.py --packages DIR [--out DIR].

DIR holds the unpacked npm packages of PACKS, as `npm pack` names them. An icon is drawn by resvg (resvg-py 0.5.0) at
128 px and averaged over 4x4 blocks in integers; stored are 32x32 premultiplied RGBA, so that a picture on a background
is rgb + (1 - alpha) * background.
"""

import argparse
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

# style -> (npm package, first half of the sha256 of its icons.json)
PACKS = {
    "twemoji": ("iconify-json-twemoji-1.2.5", "5d5d820790565b764f2728675d487c9e"),
    "noto": ("iconify-json-noto-1.2.9", "9eac6ef4e7ec122b6f0e7ac281d61008"),
    "fluent": ("iconify-json-fluent-emoji-flat-1.2.6", "f5f4cf457c0db2ad5a2e42e033e02e0c"),
    "emojione": ("iconify-json-emojione-1.2.3", "e9a865faed523a7c3535b5319ae533d0"),
    "fxemoji": ("iconify-json-fxemoji-1.2.2", "d8ef67b94a32d0abcd314d1c35db5617"),
}
SIZE, OVER = 32, 4
STICKER = 12  # px
HERE = Path(__file__).parent


def read_pack(folder: Path, style: str) -> dict:
    """The icons of one style; another file than the pinned one is refused."""
    package, sha256 = PACKS[style]
    path = folder / package / "package/icons.json"
    try:
        raw = path.read_bytes()
    except OSError:
        raise SystemExit(f"error: no {path}: npm pack and unpack the package first") from None
    if hashlib.sha256(raw).hexdigest()[:32] != sha256:
        raise SystemExit(f"error: {path} is not the pinned file (sha256 differs)")
    return json.loads(raw)


def draw(pack: dict, name: str, size: int = SIZE) -> np.ndarray:
    """One icon as premultiplied RGBA, uint8 [size, size, 4]."""
    import resvg_py

    while name not in pack["icons"]:
        name = pack["aliases"][name]["parent"]
    icon = pack["icons"][name]
    box = [icon.get(key, pack.get(key, 0)) for key in ("left", "top", "width", "height")]
    edge = size * OVER
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{edge}" height="{edge}" viewBox="{" ".join(map(str, box))}">{icon["body"]}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True))
    straight = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).astype(np.uint32)
    colour, alpha = straight[..., :3] * straight[..., 3:], straight[..., 3:] * 255
    blocks = np.concatenate([colour, alpha], 2).reshape(size, OVER, size, OVER, 4).sum(axis=(1, 3))
    whole = OVER * OVER * 255
    return ((blocks + whole // 2) // whole).astype(np.uint8)


def others(packs: dict, used: set[str], count: int) -> list[str]:
    """Names of icons that stand for "none of these": in every style but fxemoji, sharing no word with a used icon."""
    words = {word for name in used for word in name.split("-")} | set(EXCLUDED.split())
    named = [set(pack["icons"]) for style, pack in packs.items() if style != "fxemoji"]
    free = [name for name in set.intersection(*named) if name.isascii() and not words & set(name.split("-"))]
    free = [name for name in free if name.replace("-", "").isalpha() and name.count("-") < 2]
    return sorted(sorted(free, key=lambda name: hashlib.sha256(name.encode()).digest())[:count])


# Words of icons that look like a concept, or that differ from another icon in a detail only.
EXCLUDED = """
    animal arrow arrows baby bicycles bird blossom boar boat boy bubble bunny button car chick child circle
    circled couple cover dash desert ewe eyes face family flag flower fruit girl hand hands heart hearts honey left
    letter locomotive man mark medium melon men minibus moon mouse mouth oclock oncoming ox part person rabbit
    right sagittarius seal ship sign square squid sun taxi thirty tone tram truck turkey umbrella vehicle wolf
    woman women zodiac
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()

    concepts = yaml.safe_load((HERE / "concepts.yaml").read_text(encoding="utf-8"))
    memorized = yaml.safe_load((HERE / "memorized.yaml").read_text(encoding="utf-8"))
    packs = {style: read_pack(args.packages, style) for style in PACKS}
    pictures = memorized["pictures"]
    used = {*concepts, *memorized["stickers"], *(picture["icon"] for picture in pictures)}
    names = others(packs, used, 80)
    styles = [style for style in PACKS if style != "fxemoji"]
    arrays = {
        "concepts": np.stack([[draw(packs[style], name) for style in PACKS] for name in concepts]),
        "memorized": np.stack([draw(packs[picture["style"]], picture["icon"]) for picture in pictures]),
        "stickers": np.stack([draw(packs["noto"], name, STICKER) for name in memorized["stickers"]]),
        "others": np.stack([draw(packs[styles[i % len(styles)]], name) for i, name in enumerate(names)]),
    }
    for name, array in arrays.items():
        assert array.any(axis=(-1, -2, -3)).all(), f"a blank picture in {name}"
        np.save(args.out / f"{name}.npy", array)
    (args.out / "others.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
