"""The watcher's step: one look at the deployment in, what there is to say of Sluice itself out."""

from collections.abc import Iterable, Mapping

import msgspec

from schemas.alerts import Alert, Rule
from schemas.topics import INPUTS
from schemas.versions import Versioned
from streams.core import watch_checks as checks
from streams.core.watch_episodes import Episode, Symptom, follow
from streams.core.watch_letters import LettersMemory, remember
from streams.core.watch_letters import symptom as letters_symptom
from streams.core.watch_look import Look, SlotMark, WatchPolicy

_INPUTS = frozenset(topic.name for topic in INPUTS)


class WatchState(msgspec.Struct, frozen=True, kw_only=True):
    """All that the watcher remembers; it follows from the looks that were taken."""

    v: int = 1
    #: When the last look was taken, in microseconds.
    at: int = 0
    episodes: dict[str, Episode] = {}
    #: By topic.
    letters: dict[str, LettersMemory] = {}
    #: By slot: an offset that METER had committed and the ledger had not reached, and when that was seen first.
    lacking: dict[str, tuple[int, int]] = {}


WATCH_STATES = Versioned("the watcher's state", WatchState)


def step(state: WatchState, look: Look, now: int, policy: WatchPolicy) -> tuple[WatchState, list[Alert]]:
    """Take one look in. A look that was taken before the last one changes nothing."""
    if now < state.at:
        return state, []
    symptoms: list[Symptom] = []
    looked_at: set[Rule] = set()
    letters, lacking = state.letters, state.lacking
    if look.lags is not None:
        symptoms.append(checks.lag(look.lags, policy, now))
        looked_at.add("pipeline_lag")
    if look.marks is not None:
        lacking = _lacking(state.lacking, look.marks, now)
        behind = max((now - since for _, since in lacking.values()), default=0)
        symptoms.append(checks.ledger(look.ledger_silent_us, behind, policy, now))
        looked_at.add("ledger_behind")
    if look.letters is not None:
        known = {each.topic: remember(state.letters.get(each.topic), each, now) for each in look.letters}
        letters = {**state.letters, **known}
        symptoms += [letters_symptom(topic, memory, policy) for topic, memory in sorted(known.items())]
        looked_at.add("dead_letters")
    if look.sources is not None and _is_fresh(look, policy):
        symptoms += checks.silences(look.sources, policy, now)
        looked_at.add("source_silent")
    if look.unpriced is not None:
        symptoms += checks.unpriced(look.unpriced, look.requests, policy, now)
        looked_at.add("unpriced_usage")
    if look.receivers is not None:
        symptoms += checks.deliveries(look.receivers, policy, now)
        looked_at.add("delivery_failing")
    episodes, said = follow(state.episodes, symptoms, looked_at, now)
    return WatchState(at=now, episodes=episodes, letters=letters, lacking=lacking), said


def open_episodes(state: WatchState) -> list[Alert]:
    """What is open now, gravest first."""
    found = [episode.last for episode in state.episodes.values() if episode.is_open and episode.last is not None]
    return sorted(found, key=lambda alert: (alert.tier != "page", alert.rule, alert.scope_id))


def _is_fresh(look: Look, policy: WatchPolicy) -> bool:
    """Whether METER has read what arrived: while it lags, it is METER that does not hear, and nobody is silent."""
    if look.lags is None:
        return False
    return all(each.oldest_us < policy.lag_us for each in look.lags if each.topic in _INPUTS)


def _lacking(known: Mapping[str, tuple[int, int]], marks: Iterable[SlotMark], now: int) -> dict[str, tuple[int, int]]:
    """What the ledger lacks of what METER has committed, with when that was first seen.

    One offset can be a transaction's marker, which nobody counts.
    """
    after = {}
    for mark in marks:
        awaited, since = known.get(mark.slot, (mark.committed, now))
        if mark.ledger_next >= awaited - 1:
            # It came as far as it was to; what was committed since is awaited from now on.
            awaited, since = mark.committed, now
        if mark.ledger_next < awaited - 1:
            after[mark.slot] = awaited, since
    return after
