"""Runs a program of Sluice with a clock that is ahead, so that a budget's hour ends when a rig wants it to.

python -m loadtest.gateways.shifted SECONDS MODULE ARGUMENTS…
"""

import runpy
import sys
import time


def shift(seconds: float) -> None:
    """Let every clock of Sluice in this process be so much ahead; intervals are measured as before."""
    real, ahead = time.time_ns, round(seconds * 1e9)
    time.time_ns = lambda: real() + ahead


if __name__ == "__main__":
    shift(float(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
