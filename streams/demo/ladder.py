"""How the throttle of the overrun budget went up and came down: each step, who obeyed it and how soon. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from schemas.commands import Measure
from schemas.instants import format_instant
from schemas.money import format_usd
from streams.demo.verdict import Finding, Order

#: The rungs that throttle, and the gravest thing that each asks for.
RUNGS = {"rate_limit": "90 %", "downgrade": "95 %", "block": "100 %"}
#: A played hour takes one or two real seconds, so a second of delay is money; more than this is no throttle.
OVERSHOOT_PERCENT_MAX = 10


class Step(NamedTuple):
    """One step up the ladder: a command that asks for more than the one before."""

    action: str
    #: What is asked for besides what was asked for before.
    measures: tuple[Measure, ...]
    #: When the gate obeyed, in the played day.
    at: int
    #: Who acknowledged it, as the ledger knows.
    gateways: tuple[str, ...]
    #: Real milliseconds from the instant at which the played day was at the crossing until the gate obeyed; None while
    #: the crossing is not known.
    ack_delay_ms: int | None


class Ladder(NamedTuple):
    """What became of one budget's throttle."""

    budget_id: str
    steps: tuple[Step, ...]
    #: When the gate let go, in the played day.
    released: int | None
    overshoot_nanos: int
    amount_nanos: int

    @property
    def overshoot_permille(self) -> int:
        """Of the amount."""
        return self.overshoot_nanos * 1_000 // self.amount_nanos if self.amount_nanos > 0 else 0

    @property
    def unacknowledged(self) -> list[str]:
        """The steps that no gateway has acknowledged."""
        return [step.action for step in self.steps if not step.gateways]

    def report(self) -> dict[str, Any]:
        """For the summary's JSON; ``ack_delay_ms`` is that of the gravest step."""
        return {
            "overshoot_usd": float(format_usd(self.overshoot_nanos)),
            "overshoot_percent": self.overshoot_permille / 10,
            "ack_delay_ms": self.steps[-1].ack_delay_ms if self.steps else None,
            "measures_seen": [step.action for step in self.steps],
            "ladder": [
                {
                    "rung": RUNGS.get(step.action, ""),
                    "asks": [in_words(measure) for measure in step.measures],
                    "at": format_instant(step.at),
                    "acknowledged_by": list(step.gateways),
                    "ack_delay_ms": step.ack_delay_ms,
                }
                for step in self.steps
            ],
        }


def ladder_of(
    budget_id: str,
    orders: Sequence[Order],
    findings: Sequence[Finding],
    acks: Mapping[str, Sequence[str]],
    real_s: Callable[[int], float | None],
    money: tuple[int, int] = (0, 0),
) -> Ladder:
    """The ladder of one budget.

    Args:
        budget_id: whose.
        orders: what the gate took, in its order.
        findings: all alerts; those of this budget say when its rungs were crossed.
        acks: the gateways that acknowledged each command.
        real_s: when the played day was at an instant, in real seconds.
        money: overshoot and amount in nanodollars.
    """
    own = [order for order in orders if order.budget_id == budget_id]
    crossed = {f.threshold: f.opened_at for f in findings if f.scope_id == budget_id and f.rule == "budget_threshold"}
    steps: list[Step] = []
    before, action = frozenset[str](), ""
    for order in own:
        asked = frozenset(in_words(measure) for measure in order.measures)
        if order.action not in ("allow", action):
            at = crossed.get(RUNGS.get(order.action, ""))
            began = None if at is None else real_s(at)
            delay = None if began is None else max(0, round((order.real_s - began) * 1_000))
            fresh = tuple(measure for measure in order.measures if in_words(measure) not in before)
            steps.append(Step(order.action, fresh, order.at, tuple(acks.get(order.command_id, ())), delay))
        before, action = asked, order.action
    released = own[-1].at if own and own[-1].action == "allow" else None
    return Ladder(budget_id, tuple(steps), released, *money)


def failures_of_ladder(ladder: Ladder) -> list[str]:
    """What was not as it should be, one sentence each."""
    name, seen, found = ladder.budget_id, [step.action for step in ladder.steps], []
    if seen != list(RUNGS):
        found.append(f"BUDGET: the throttle of {name} went {' > '.join(seen) or 'nowhere'}, not {' > '.join(RUNGS)}")
    found += [f"GATEWAY: {action} of {name} was acknowledged by nobody" for action in ladder.unacknowledged]
    found += [f"BUDGET: {step.action} of {name} came without its rung" for step in ladder.steps if _is_rungless(step)]
    if ladder.steps and ladder.released is None:
        found.append(f"BUDGET: the throttle of {name} was not released in the end")
    if ladder.overshoot_nanos * 100 > ladder.amount_nanos * OVERSHOOT_PERCENT_MAX:
        found.append(
            f"BUDGET: {name} was overshot by {ladder.overshoot_permille / 10} %, more than {OVERSHOOT_PERCENT_MAX} %"
        )
    return found


def _is_rungless(step: Step) -> bool:
    return step.action in RUNGS and step.ack_delay_ms is None


def in_words(measure: Measure) -> str:
    """What a measure does, for people.

    >>> in_words(Measure("rate_limit", request_types=("batch",), rpm=1)), in_words(Measure("block"))
    ('batch: 1 a minute', 'block')
    """
    whom = ", ".join((*measure.request_types, *measure.environments))
    if measure.action == "block":
        does = "block"
    elif measure.action == "downgrade":
        does = ", ".join(f"{asked} → {instead}" for asked, instead in sorted(measure.models.items()))
    elif measure.action == "cap_tokens":
        does = f"at most {measure.max_tokens} tokens"
    else:
        limits = ((measure.rpm, "a minute"), (measure.tpm, "tokens a minute"))
        does = ", ".join(f"{limit:,} {unit}" for limit, unit in limits if limit is not None)
    return f"{whom}: {does}" if whom else does
