"""What running stages side by side costs and saves: python benchmarks/parallel.py, after a `make repro` that ran cells.

It reads the records of that run, times a run with nothing to do, and times one cell beside a busy process.
"""

import json
import multiprocessing
import statistics
import subprocess
import sys
import time

from palinode.pipeline.stage import LOG
from palinode.run.processes import RECORD

CELL = ("sample", "images", "tshirt", "0", "siss-05", "0")


def read_lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def measure_use(workers: int) -> None:
    """CPU seconds over (wall time x workers) while cells ran, and DVC's own share of a stage."""
    own = {entry["stage"]: entry for entry in read_lines(LOG) if "cpu" in entry}
    ran = [entry for entry in read_lines(RECORD) if entry["stage"] in own]
    cells = [entry for entry in ran if entry["stage"].startswith(("unlearn", "sample", "evaluate"))]
    begin = min(entry["begin"] for entry in cells)
    end = max(entry["begin"] + entry["seconds"] for entry in cells)
    cpu = sum(entry["cpu"] + own[entry["stage"]]["cpu"] for entry in cells)
    use = cpu / ((end - begin) * workers)
    print(f"{len(cells)} stages of cells in {end - begin:.0f} s: {use:.2f} of {workers} workers in use")
    around = statistics.median(entry["seconds"] - own[entry["stage"]]["seconds"] for entry in cells)
    dvc = statistics.median(entry["cpu"] for entry in cells)
    print(f"around a stage: median {around:.2f} s, of which DVC computes {dvc:.2f} s")


def time_command(*command: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - begin


def spin() -> None:
    while True:
        pass


def main() -> None:
    measure_use(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    nothing = min(time_command("-m", "palinode.run") for _ in range(3))
    print(f"nothing to do: {nothing:.1f} s")
    script, *arguments = CELL
    alone = time_command(f"stages/{script}.py", *arguments)
    busy = multiprocessing.Process(target=spin, daemon=True)
    busy.start()
    beside = time_command(f"stages/{script}.py", *arguments)
    busy.kill()
    print(f"{' '.join(CELL)}: {alone:.0f} s alone, {beside / alone:.2f} times that beside a busy process")


if __name__ == "__main__":
    main()
