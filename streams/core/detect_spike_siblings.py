"""What scopes of the same kind are like: for one that is too young to know what is usual for itself.

Asked about a day, they tell of the time until the midnight before the one that it begins with. By then nothing of it
can change any more, so the answer is the same whenever it is asked, in whatever order the statements came.
"""

from collections.abc import Iterable
from statistics import median

from detectors.spend_bars import HOURS_MIN, SCALES
from detectors.spend_spike import Outlook, Siblings, SpendSpike
from schemas.instants import DAY
from schemas.keys import digest
from streams.core.detect_spike_state import SpikeState

#: Fewer tell nothing; more tell no more, and cost time.
SIBLINGS_MIN, SIBLINGS_MAX = 3, 48


def siblings_of(states: Iterable[SpikeState], kind: str, instant: int) -> Siblings | None:
    """Medians over the scopes of a kind (``team``, ``feature``) as they were a day before the day of ``instant``.

    None where fewer than three of them know three days, or spend anything.
    """
    until = instant - instant % DAY - DAY
    old_enough = until - HOURS_MIN * DAY // 24
    own = [state for state in states if state.scope.partition(":")[0] == kind and state.history.end > old_enough]
    found: list[Outlook] = []
    for state in sorted(own, key=lambda state: digest(state.scope)):
        outlook = SpendSpike.from_state(state.history).outlook(until)
        if outlook is not None and outlook.mean > 0:
            found.append(outlook)
        if len(found) == SIBLINGS_MAX:
            break
    if len(found) < SIBLINGS_MIN:
        return None
    return Siblings(
        mean=median(each.mean for each in found),
        bars=tuple(median(each.bars[scale] / each.mean for each in found) for scale in range(len(SCALES))),
        spread=median(each.spread / each.mean for each in found),
    )
