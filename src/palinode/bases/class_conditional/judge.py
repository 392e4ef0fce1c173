"""The evaluation classifier of the base's samples: the digit judge."""

from palinode.bases.digit_judge import run

__all__ = ["run"]
