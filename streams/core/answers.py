"""What people said, as detectors ask for it: answers by what learns from them, and what is planned for a scope.

Everything is a question of what is defined now and of event time; nothing is remembered here. What was answered or
declared counts from the event time on at which it was known, so that a replay learns it in the same order.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple
from urllib.parse import unquote

from detectors.spend_spike import NO_MARGIN, PLAN_MARGIN, YES_MARGIN, Answer
from schemas.answers import AlertAnswer, AnswerKind, PlannedEvent
from schemas.instants import DAY, HOUR

#: A plan is looked at a day before it begins, and for as long as bars look back after its end.
_AHEAD, _BEHIND = DAY, 14 * DAY
_ORG = "org:"

Word = AnswerKind | Literal[""]
#: Words after which nobody is told.
QUIET = ("no", "planned")


class Plan(NamedTuple):
    """What was declared for some hours of a scope; ``is_own`` where it was declared for this very scope."""

    start: int
    end: int
    nanos: int
    known_from: int
    is_own: bool


class Lessons:
    """All answers and planned events that stand."""

    def __init__(self, answers: Iterable[AlertAnswer] = (), events: Iterable[PlannedEvent] = ()) -> None:
        self._by_teaches: dict[str, list[AlertAnswer]] = {}
        for each in answers:
            if each.teaches:
                self._by_teaches.setdefault(each.teaches, []).append(each)
        for known in self._by_teaches.values():
            known.sort(key=_in_order)
        said = [
            (each.teaches, Plan(*_hours(each), each.nanos, each.known_from, False))
            for known in self._by_teaches.values()
            for each in known
            if each.answer == "planned" and each.rule == "spend_spike"
        ]
        said += [(each.scope, Plan(*_hours(each), each.nanos, each.known_from, False)) for each in events]
        #: What was planned, by the scope that it is about; by each scope that this one is a part of, but organisations;
        #: and for organisations, of which everything is a part.
        self._planned: dict[str, list[Plan]] = {}
        self._parts: dict[str, list[Plan]] = {}
        self._orgs: list[Plan] = []
        for scope, plan in said:
            self._planned.setdefault(scope, []).append(plan)
            for whole in wholes(scope):
                self._parts.setdefault(whole, []).append(plan)
            if scope.startswith(_ORG):
                self._orgs.append(plan)
        self._plans: dict[str, tuple[Plan, ...]] = {}

    def of(self, teaches: str) -> Sequence[AlertAnswer]:
        """The answers that something learns from, in the order in which they were given."""
        return self._by_teaches.get(teaches, ())

    def plans(self, scope: str) -> tuple[Plan, ...]:
        """What was planned for a scope, or for one that contains it or lies in it; looked up once a scope."""
        if not self._planned:
            return ()
        if scope not in self._plans:
            found = [plan._replace(is_own=True) for plan in self._planned.get(scope, ())]
            if scope.startswith(_ORG):
                # Which teams are this one's is not known here: there is seldom another one.
                found += [plan for part, held in self._planned.items() if not part.startswith(_ORG) for plan in held]
            else:
                found += self._orgs
            found += [plan for whole in wholes(scope) for plan in self._planned.get(whole, ())]
            found += self._parts.get(scope, ())
            self._plans[scope] = tuple(sorted(found))
        return self._plans[scope]

    def windows(self, scope: str, at: int) -> tuple[Answer, ...]:
        """What a spend detector is told of plans at an event time: disjoint windows, overlapping plans added up.

        Where a scope has plans of its own, those of scopes around it say nothing more. ``planned`` windows page above
        what was declared; ``within`` ones, which were declared for another scope, only quieten.
        """
        held = [
            plan
            for plan in self.plans(scope)
            if plan.known_from <= at and plan.start - _AHEAD <= at < plan.end + _BEHIND
        ]
        own = _merged("planned", [plan for plan in held if plan.is_own])
        around = [
            plan for plan in held if not plan.is_own and not any(p.start < plan.end and plan.start < p.end for p in own)
        ]
        return tuple(sorted([*own, *_merged("within", around)], key=lambda window: window.start))

    def verdict(self, teaches: str, figures: Sequence[int], nanos: int, at: int, scopes: Iterable[str] = ()) -> Word:
        """What people said of something as large as this: ``no`` or ``planned``, which are quiet (``QUIET``), ``yes``:
        it is found again, also where more was spent than planned; or nothing.

        Args:
            teaches: what learns from answers to it.
            figures: how large it is, each to be compared with the same figure of what was answered.
            nanos: what it has cost so far: as much as 1.5 times what was planned for its time is quiet.
            at: event time.
            scopes: those whose planned events cover it.
        """
        for plan in (plan for scope in scopes for plan in self.plans(scope) if plan.is_own):
            if plan.known_from <= at and plan.start <= at < plan.end and nanos <= PLAN_MARGIN * plan.nanos:
                return "planned"
        for each in reversed(self.of(teaches)):
            if each.known_from > at:
                continue
            if each.answer == "planned" and each.starts <= at < each.until:
                return "planned" if nanos <= PLAN_MARGIN * each.nanos else "yes"
            if each.answer == "no" and _hides(each.figures, figures):
                return "no"
            if each.answer == "yes" and _is_as_large(each.figures, figures):
                return "yes"
        return ""


NO_LESSONS = Lessons()


def wholes(scope: str) -> tuple[str, ...]:
    """The scopes that spend all of this one's money, besides its organisation.

    >>> wholes("team_feature:a%2Fb/chat"), wholes("team:search")
    (('team:a/b', 'feature:chat'), ())
    """
    kind, _, name = scope.partition(":")
    if kind != "team_feature":
        return ()
    team, _, feature = name.partition("/")
    return f"team:{unquote(team)}", f"feature:{unquote(feature)}"


def lessons_of(answers: Mapping[str, AlertAnswer], events: Mapping[str, PlannedEvent]) -> Lessons:
    """What is defined, as detectors ask for it."""
    return Lessons(answers.values(), events.values()) if answers or events else NO_LESSONS


def _in_order(answer: AlertAnswer) -> tuple[int, int, str]:
    return answer.known_from, answer.changed_at, answer.alert


def _hours(event: PlannedEvent | AlertAnswer) -> tuple[int, int]:
    return event.starts - event.starts % HOUR, -(-event.until // HOUR) * HOUR


def _merged(kind: str, plans: Iterable[Plan]) -> list[Answer]:
    found: list[Answer] = []
    for plan in sorted(plans):
        if found and plan.start < found[-1].end:
            before = found.pop()
            found.append(Answer(kind, before.start, max(before.end, plan.end), before.nanos + plan.nanos))
        else:
            found.append(Answer(kind, plan.start, plan.end, plan.nanos))
    return found


def _hides(answered: Sequence[int], figures: Sequence[int]) -> bool:
    pairs = list(zip(answered, figures, strict=False))
    return bool(pairs) and all(new <= NO_MARGIN * old for old, new in pairs)


def _is_as_large(answered: Sequence[int], figures: Sequence[int]) -> bool:
    for old, new in zip(answered, figures, strict=False):
        if old > 0:
            return new >= YES_MARGIN * old
    return False
