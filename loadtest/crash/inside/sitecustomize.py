"""Loaded by every process of a run: SIGUSR1 writes what each of its tasks waits for to its log, and changes nothing."""

import asyncio
import signal
import sys
import traceback


def _tell(number: int, frame: object) -> None:
    # Python 3.12 gave the set another name.
    tasks = list(getattr(asyncio.tasks, "_all_tasks", None) or asyncio.tasks._scheduled_tasks)
    print(f"-- what {len(tasks)} tasks wait for", file=sys.stderr)
    for task in tasks:
        if not task.done():
            _tell_of(task)
    print("-- end", file=sys.stderr, flush=True)


def _tell_of(task: asyncio.Task[object]) -> None:
    """The frames of a task down to the innermost await, which ``Task.print_stack`` leaves out."""
    print(f"task {task.get_name()}", file=sys.stderr)
    waiting: object = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            line = traceback.extract_stack(frame, limit=1)[-1]
            print(f"    {line.filename}:{line.lineno} {line.name}: {line.line}", file=sys.stderr)
        following = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
        if following is None:
            print(f"    awaits {waiting!r}", file=sys.stderr)
        waiting = following


signal.signal(signal.SIGUSR1, _tell)
