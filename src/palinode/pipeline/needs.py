"""Which methods run on which tasks: what a method needs, compared with what a task offers."""

from palinode import methods, tasks
from palinode.core.errors import UserError
from palinode.params import KINDS, Params
from palinode.params.bases import TextBase


def offers(params: Params, kind: str, task: str) -> frozenset[str]:
    """What a method may need of a task."""
    offered: frozenset[str] = tasks.load(kind).OFFERS
    if isinstance(params.recipe(params.task(task).base), TextBase):
        offered |= {"text"}
    return offered


def needs_of(params: Params, task: str, row: str) -> frozenset[str]:
    """What a row needs of a task."""
    settings = params.row(task, row)
    method = methods.load(settings.method, settings.options, f"rows.{row}.options: ")
    text = {"text"} if settings.trainable != "all" else set()  # cross-attention, which only text-to-image models have
    return method.needs | text


def missing_need(params: Params, kind: str, task: str, row: str) -> str | None:
    """Why a row cannot run on a task, or None."""
    offered = offers(params, kind, task)
    own = methods.find(params.rows[row].method, f"rows.{row}.method: ").needs
    # What a class needs whatever its options are comes first: an option may be set by tasks that have it alone.
    needed: set[str] = set(own) & methods.NEEDS.keys() if isinstance(own, frozenset) else set()
    missing = sorted(needed - offered) or sorted(needs_of(params, task, row) - offered)
    if not missing:
        return None
    return f"{row} needs {methods.NEEDS[missing[0]]}, which {task} does not offer"


def check(params: Params) -> None:
    """UserError for a row that can run on no task of its list."""
    for kind in KINDS:
        enabled = params.enabled(kind)
        for row in enabled.rows:
            reasons = [missing_need(params, kind, task, row) for task in enabled.tasks]
            if reasons and all(reasons):
                raise UserError(f"{kind}.rows: {reasons[0]}")
