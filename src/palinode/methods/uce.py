"""UCE: the keys and values of the target's name replaced by those of the anchor's, in closed form."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from palinode.methods import Method, Source
from palinode.models.text_to_image import TextToImage


def solve_edit(w_0: Tensor, c: Tensor, g: Tensor, kept: Tensor, a: float, b: float, lam: float) -> Tensor:
    """argmin_W a sum ||W c_i - W_0 g_i||^2 + b sum ||W c_j - W_0 c_j||^2 + lam ||W - W_0||^2.

    w_0 [out, in]; c, g [n, in], the states to edit and those to map them to; kept [k, in], states to keep. W = (a sum
    W_0 g_i c_i^T + b sum W_0 c_j c_j^T + lam W_0) (a sum c_i c_i^T + b sum c_j c_j^T + lam I)^-1, in float64.
    """
    w_0, c, g, kept = (v.double() for v in (w_0, c, g, kept))
    held = b * kept.T @ kept + lam * torch.eye(w_0.shape[1], dtype=w_0.dtype)
    return torch.linalg.solve(a * c.T @ c + held, w_0 @ (a * g.T @ c + held), left=False)


PHRASES = {  # with which the official script can expand a concept, by its type
    "object": ("image of {}", "photo of {}", "portrait of {}", "picture of {}", "painting of {}"),
    "art": ("painting by {}", "art by {}", "artwork by {}", "picture by {}", "style of {}"),
}


@dataclass
class UCE(Method):
    """`solve_edit` on every key and value matrix of the cross-attention, for the state of the last word of a prompt.

    The target's states are mapped to the anchor's, those of all other things are kept. There are no training steps.
    expand: which prompts end in a name. "none", the name alone, as the official script does by default; "object" and
    "art", its phrases besides, as far as the text encoder knows their words; "templates", the task's training templates
    besides, for what is kept too, where the task has templates.
    """

    source = Source(
        paper="Gandikota et al.: Unified Concept Editing in Diffusion Models (UCE)",
        arxiv="2308.14761",
        venue="WACV 2024",
        equation="Equation 7, the closed form of the edited projection, with the repository's regularisation lam",
        repository="rohitgandikota/unified-concept-editing at 28c81ed",
        compared=("The edited matrices agree to 2.3e-6 of numbers near 1, with its own phrases and without.",),
        deviations=(
            "The target is mapped to the task's anchor; the repository's defaults are the word art, or no words.",
            "All other things and styles of the task are kept; the repository keeps what it is told.",
            "The system is solved in float64; the repository inverts a float32 matrix.",
            "States in templates (`expand: templates`) are ours.",
        ),
    )
    closed_form = True
    needs = frozenset({"anchor", "text"})

    a: Annotated[float, Field(gt=0)] = 1.0
    b: Annotated[float, Field(ge=0)] = 1.0
    lam: Annotated[float, Field(gt=0)] = 0.5  # at 0 the system may have no single solution
    expand: Literal["none", "object", "art", "templates"] = "none"

    @torch.no_grad()
    def edit(self, model: TextToImage, names: dict[str, list[str]]) -> None:
        c = model.last_states(self.expanded(model, names, "target")).cpu()
        g = model.last_states(self.expanded(model, names, "anchor")).cpu()
        kept = names["kept"] + (names["kept_in_templates"] if self.expand == "templates" else [])
        kept_states = model.last_states(kept).cpu()
        for name, weight in model.net.named_parameters():
            if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
                weight.copy_(solve_edit(weight.cpu(), c, g, kept_states, self.a, self.b, self.lam))

    def expanded(self, model: TextToImage, names: dict[str, list[str]], role: str) -> list[str]:
        """The prompts that stand for the "target" or the "anchor"."""
        if self.expand == "templates":
            return names[role] + names[f"{role}_in_templates"]
        phrases = [phrase for phrase in PHRASES.get(self.expand, ()) if not model.unknown_words(phrase.format(""))]
        return names[role] + [phrase.format(name) for name in names[role] for phrase in phrases]
