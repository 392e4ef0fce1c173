"""ESD: the target's prediction pushed away from the target, along the original model's own guidance."""

from dataclasses import dataclass

import torch

from palinode.methods import Method


@dataclass
class ESD(Method):
    """||eps_theta(z_t, c) - [eps_0(z_t, c) - eta (eps_0(z_t, c) - eps_0(z_t, nothing))]||^2 (ESD; digest 6).

    z_t: states of the original model's own sampling under the target's caption c, so that no pictures are needed. Which
    weights train makes the variant: esd-x cross-attention, esd-u all others, esd-x-strict its keys and values.
    """

    eta: float = 1.0
    needs_states = True

    def begin(self, model, helpers):
        self._original = model.frozen()

    def losses(self, model, batch):
        with torch.no_grad():
            given = self._original.predict(batch.z, batch.t_z, batch.c_z)
            without = self._original.predict(batch.z, batch.t_z, batch.c_0.expand_as(batch.c_z))
        target = given - self.eta * (given - without)
        return {"f": (target - model.predict(batch.z, batch.t_z, batch.c_z)).square().sum() / len(batch.z)}

    def combine(self, grads):
        return grads["f"], {}
