"""Contact sheets of what a text-to-image base drew for its check."""

import numpy as np

from palinode.bases.caption_checks import Request
from palinode.core.contact_sheet import sheet
from palinode.core.images import to_images
from palinode.data import emoji
from palinode.data.captions import PROMPT_SETS, STYLES
from palinode.data.scenes import EmojiCorpus


def sheets(images: np.ndarray, requests: list[Request], corpus: EmojiCorpus) -> dict[str, np.ndarray]:
    """Contact sheets, uint8 [h, w, 3].

    concepts: five columns a thing, one a style; prompt-sets: two rows each; memorized: each fixed picture (as it is
    without a sticker) and three samples of its caption.
    """
    pairs = [i for i, request in enumerate(requests) if request.group in ("seen", "unseen")]
    sets = []
    for name in PROMPT_SETS:
        sets += [i for i, request in enumerate(requests) if request.group == name][:40]
    backgrounds = [picture.background for picture in corpus.pictures]
    fixed = to_images(emoji.on_background(corpus.fixed, backgrounds) * 2 - 1)
    strips = []
    for number, picture in enumerate(fixed):
        samples = [i for i, request in enumerate(requests) if request.picture == number][:3]
        strips += [picture[None], images[samples]]
    return {
        "concepts": sheet(images[pairs], 4 * len(STYLES)),
        "prompt-sets": sheet(images[sets], 20),
        "memorized": sheet(np.concatenate(strips), 20),
    }
