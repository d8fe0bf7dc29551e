"""Run `attnstats run` in child processes, and kill them at random moments.

    python -m tests.reliability.killing MODEL CORPUS DIRECTORY N SEED

The children are forks of this process, which has everything imported and compiled, so that they start at once. Prints a
line of JSON for each of N kills.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from pathlib import Path

# Threads do not survive a fork. This comes before torch is imported.
os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}

import psutil

from tests.asserting import assert_resumed
from tl_attnstats.cli import main
from tl_attnstats.results.stats import load

METRICS = "exemplars,bootstrap,pos_to"


def command(model: str, corpus: str, out: Path) -> list[str]:
    """A checkpoint after each batch, so that most kills hit one that is being written."""
    every = ["--checkpoint-every", "1us", "--batch-tokens", "64", "--metrics", METRICS, "--source", "hooks"]
    return ["run", model, "--corpus", corpus, "--out", str(out), *every]


def start(arguments: list[str], errors: Path) -> int:
    """The command in a child process; its id."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            handle = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            code = main(arguments)
        finally:
            os._exit(code)
    return child


def finish(arguments: list[str], errors: Path) -> float:
    """Run the command to its end, and return the seconds of CPU that it took."""
    _, status, used = os.wait4(start(arguments, errors), 0)
    assert os.waitstatus_to_exitcode(status) == 0, errors.read_text()
    return used.ru_utime + used.ru_stime


def kill(child: int, moment: float, more: float) -> bool:
    """Kill a process once it has used so many seconds of CPU, and some more have passed; False if it ended before.

    CPU, because a machine with other work to do takes longer, and the moments would bunch up at the beginning.
    """
    process = psutil.Process(child)
    while process.status() != psutil.STATUS_ZOMBIE:
        used = process.cpu_times()
        if used.user + used.system >= moment:
            time.sleep(more)  # into what takes no CPU too, such as waiting for the disk
            break
        time.sleep(0.001)
    process.kill()
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def kill_all(model: str, corpus: str, directory: Path, n: int, seed: int) -> None:
    main(command(model, corpus, directory / "undisturbed"))  # imports and compiles everything
    length = finish(command(model, corpus, directory / "undisturbed"), directory / "undisturbed.txt")
    undisturbed = load(directory / "undisturbed" / "stats.nc")
    files = sorted(path.name for path in (directory / "undisturbed").iterdir())
    moments = random.Random(seed)
    for number in range(n):
        out, errors = directory / f"out{number}", directory / f"out{number}.txt"
        arguments = command(model, corpus, out)
        # One moment in each n-th of the run.
        moment = (number + moments.random()) / n * length
        killed = kill(start(arguments, errors), moment, moments.random() * 0.02)
        left = sorted(path.name for path in out.iterdir()) if out.exists() else []
        finish(arguments, errors)
        assert_resumed(load(out / "stats.nc"), undisturbed)
        found = sorted(path.name for path in out.iterdir())
        said = errors.read_text()
        report = {
            "moment": round(moment / length, 3),
            "killed": killed,
            "left": left,
            "resumed": "going on from" in said,
            "more": sorted({*found} ^ {*files}),
        }
        print(json.dumps(report), flush=True)
        shutil.rmtree(out)


if __name__ == "__main__":
    kill_all(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
