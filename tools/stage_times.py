"""Keep what each stage took in the last run as what a fresh clone expects: python tools/stage_times.py.

It reads out/log.jsonl and writes benchmarks/stage_times.json, for `make repro ARGS=--dry-run` and the minutes left.
"""

from palinode.core.io import write_json
from palinode.pipeline.stage import run_tool
from palinode.report.environment import describe
from palinode.run import costs


def run() -> None:
    known = costs.read_known()
    machine = {name: describe()[name] for name in ("cpu", "cores")}
    stages = {name: list(cost) for name, cost in sorted(known.items())}
    write_json(costs.SHIPPED, {"machine": machine, "stages": stages})
    print(f"{costs.SHIPPED}: {len(stages)} stages")


if __name__ == "__main__":
    run_tool(run)
