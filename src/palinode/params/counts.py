"""Counting forget images among many samples, to tell a small rate from none."""

from palinode.params.fields import Natural, Positive, Rate, Settings


class Counts(Settings):
    """Which tasks and rows of the kind `images` are counted; base and oracle are counted with them.

    A trajectory is given up after `look` steps if the x_0 predicted there is further than `far` hit distances from
    every forget image. The SISS paper counts 30,720 samples of each of five models.
    """

    tasks: list[str] = []
    rows: list[str] = []
    seeds: list[Natural] = [0]  # of the cells that are counted
    count: Positive = 30720
    look: Positive = 20  # of the steps of `sample`
    far: Rate = 2.0
    chunk: Positive = 256
