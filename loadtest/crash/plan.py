"""What one seed does: faults with their moments, clocks that jump, the load's size. A pure function of the seed.

The plan is reproducible; how its faults interleave with the threads and processes they hit is not.
"""

from collections.abc import Callable, Iterable
from random import Random
from typing import Any, NamedTuple

WORKERS = 2
#: The shortest that Sluice allows; a frozen worker is declared dead after it.
SESSION_TIMEOUT_S = 6.0
#: Faults begin once records flow and end with the load.
FIRST_FAULT_S = 2.0
BROKER_FAULTS_MAX = 2


class Fault(NamedTuple):
    """One thing done to the running service, ``at_s`` seconds after the load's start."""

    at_s: float
    name: str
    terms: dict[str, Any]

    def __str__(self) -> str:
        words = ", ".join(f"{name} {value}" for name, value in self.terms.items())
        return f"{self.at_s:5.1f} s  {self.name}" + (f" ({words})" if words else "")


class Jump(NamedTuple):
    """A producer's clock is wrong by ``skew_s`` for a while: what its team's events say is then early or late."""

    team: int
    from_s: float
    to_s: float
    skew_s: int

    def __str__(self) -> str:
        return f"{self.from_s:5.1f} s  clock of team-{self.team:02d} is {self.skew_s:+d} s off (until {self.to_s} s)"


class Plan(NamedTuple):
    """Everything about a run that the seed decides."""

    seed: int
    events: int
    duration_s: float
    faults: tuple[Fault, ...]
    jumps: tuple[Jump, ...]


def _killing(chance: Random) -> dict[str, Any]:
    # Below and above the session timeout: the group learns of the death from the return, or from the silence.
    return {"worker": chance.randrange(WORKERS), "back_after_s": chance.choice((0.0, 0.5, 2.0, 8.0))}


def _stopping(chance: Random) -> dict[str, Any]:
    return {"worker": chance.randrange(WORKERS), "back_after_s": chance.choice((0.0, 1.0, 3.0))}


def _joining(chance: Random) -> dict[str, Any]:
    return {"for_s": round(chance.uniform(3, 9), 1), "leaves_by": chance.choice(("SIGTERM", "SIGKILL"))}


def _freezing(chance: Random) -> dict[str, Any]:
    return {"worker": chance.randrange(WORKERS), "for_s": round(SESSION_TIMEOUT_S + chance.uniform(1.5, 4), 1)}


def _pausing(chance: Random) -> dict[str, Any]:
    return {"back_after_s": chance.choice((0.0, 1.0, 3.0))}


def _cutting(chance: Random) -> dict[str, Any]:
    return {"times": chance.randrange(1, 4)}


#: Every fault and how its terms are drawn; ``faults.CARRY_OUT`` says what each does.
KINDS: dict[str, Callable[[Random], dict[str, Any]]] = {
    "kill worker": _killing,
    "stop worker": _stopping,
    "third worker joins and leaves": _joining,
    "freeze worker": _freezing,
    "freeze broker": lambda chance: {"for_s": 10.0},
    "kill broker": _pausing,
    "restart broker": _pausing,
    "kill PostgreSQL": _pausing,
    "restart PostgreSQL": _pausing,
    "cut Kafka connections": _cutting,
    "cut PostgreSQL connections": _cutting,
    "fill the disk": lambda chance: {"for_s": round(chance.uniform(2, 5), 1)},
}
_BROKER = {"freeze broker", "kill broker", "restart broker", "fill the disk"}
#: What a producer's clock may be off by: within the allowed 300 s ahead, far beyond it, minutes and hours behind.
SKEWS_S = (200, 240, 7_200, 86_400, -90, -1_800, -9_000)


def make_plan(
    seed: int, events: int = 60_000, duration_s: float = 30.0, faults: int = 7, only: Iterable[str] = ()
) -> Plan:
    """The plan of a seed. Two workers are killed in every plan; ``only`` names the kinds to choose the rest from."""
    chance = Random(f"plan {seed}")
    kinds = [name for name in KINDS if not only or name in set(only)]
    names = [name for name in ("kill worker",) * 2 if name in kinds]
    others = [name for name in kinds if name != "kill worker"] or kinds
    chance.shuffle(others)
    while len(names) < faults:
        name = others.pop(0)
        others.append(name)
        # Each broker fault takes some ten seconds away from the others.
        if name in _BROKER and sum(known in _BROKER for known in names) >= BROKER_FAULTS_MAX and not only:
            continue
        names.append(name)
    moments = sorted(round(chance.uniform(FIRST_FAULT_S, duration_s - 2), 1) for _ in names)
    chance.shuffle(names)
    done = tuple(Fault(at, name, KINDS[name](chance)) for at, name in zip(moments, names, strict=True))
    return Plan(seed, events, duration_s, done, _jumps(chance, duration_s))


def _jumps(chance: Random, duration_s: float) -> tuple[Jump, ...]:
    jumps = []
    for skew in chance.sample(SKEWS_S, 3):
        begin = round(chance.uniform(1, duration_s - 3), 1)
        jumps.append(Jump(chance.randrange(TEAMS), begin, round(begin + 2.5, 1), skew))
    return tuple(sorted(jumps, key=lambda jump: jump.from_s))


#: Teams of the load, from the busiest to the quietest.
TEAMS = 12
