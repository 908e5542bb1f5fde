"""What a simulation found, for people and for machines. Amounts are exact decimal strings of dollars."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from schemas.instants import SECOND, format_instant
from schemas.money import display_usd, format_usd
from streams.commands.printing import print_line, print_table
from streams.simulation.gate import Fate
from streams.simulation.run import Outcome, Tally

FATES: tuple[Fate, ...] = ("refused", "downgraded", "capped")
_PAGED = ("page", "ticket", "note")
ROWS_SHOWN = 40
_NUMBERS = ("amount", "recorded", "simulated", "over", "saved net", "passed")


def as_json(outcome: Outcome, delay_us: int) -> dict[str, Any]:
    """The whole report."""
    return {
        "from": format_instant(outcome.start),
        "to": format_instant(outcome.end),
        "enforcement_delay_seconds": delay_us / SECOND,
        "calls": outcome.total.calls,
        "recorded_cost": format_usd(outcome.total.recorded_nanos),
        "simulated_cost": format_usd(outcome.total.nanos),
        "saved_net": format_usd(outcome.total.saved_nanos),
        "downgraded_without_a_price": outcome.unpriced,
        "budgets": [_budget(outcome, place) for place in range(len(outcome.accounts))],
        "throttled": [
            {
                "budget_id": held.budget_id,
                "scope": held.scope,
                "action": held.action,
                "from": format_instant(held.start),
                "to": None if held.end is None else format_instant(held.end),
                "reason": held.reason,
            }
            for held in outcome.held
        ],
        "by_budget": [
            {"budget_id": budget_id} | _fates(fates) for budget_id, fates in sorted(outcome.by_budget.items())
        ],
        "by_feature": [
            {"team": team, "feature": feature} | _fates(fates) for (team, feature), fates in _ranked(outcome)
        ],
        "messages": _messages(outcome),
        "alerts": [
            {
                "at": alert.stated_at,
                "tier": alert.tier,
                "severity": alert.severity,
                "budget_id": alert.scope_id,
                "threshold": alert.threshold,
                "summary": alert.summary,
            }
            for alert in outcome.alerts
            if alert.status == "opened"
        ],
    }


def _budget(outcome: Outcome, place: int) -> dict[str, Any]:
    account = outcome.accounts[place]
    recorded = outcome.recorded.get((account.scope, account.period_start), 0)
    over = max(0, account.spent_nanos - account.amount_nanos)
    return {
        "budget_id": account.budget_id,
        "value": account.value,
        "period_start": format_instant(account.period_start),
        "period_end": format_instant(account.period_end),
        "amount": format_usd(account.amount_nanos),
        "recorded": format_usd(recorded),
        "simulated": format_usd(account.spent_nanos),
        "overshoot": format_usd(over),
    }


def _fates(fates: dict[Fate, Tally]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for fate in FATES:
        tally = fates.get(fate, Tally())
        found[fate] = tally.calls
        found[f"{fate}_saved"] = format_usd(tally.saved_nanos)
        if fate != "refused":
            found[f"{fate}_cost"] = format_usd(tally.nanos)
    passed = fates.get("passed")
    if passed is not None:
        found["passed"] = passed.calls
    found["saved_net"] = format_usd(sum(tally.saved_nanos for tally in fates.values()))
    return found


def _ranked(outcome: Outcome) -> list[tuple[tuple[str, str], dict[Fate, Tally]]]:
    """The features that were throttled, those with the most refused requests first."""
    touched = [item for item in outcome.by_feature.items() if item[1].keys() - {"passed"}]
    return sorted(touched, key=lambda item: (-item[1].get("refused", Tally()).calls, item[0]))


def _messages(outcome: Outcome) -> dict[str, int]:
    opened: list[str] = [alert.tier for alert in outcome.alerts if alert.status == "opened"]
    return {f"{tier}s": opened.count(tier) for tier in _PAGED}


def show(outcome: Outcome, delay_us: int, out: Console) -> None:
    """The report in tables."""
    total = outcome.total
    print_line(out, f"{total.calls:,} events, {format_instant(outcome.start)} to {format_instant(outcome.end)};"
               f" gateways obey {delay_us / SECOND:g} s after a command")  # fmt: skip
    print_line(out, f"recorded {display_usd(total.recorded_nanos)}, with these budgets {display_usd(total.nanos)}:"
               f" {display_usd(total.saved_nanos)} saved net of what downgraded calls cost")  # fmt: skip
    if outcome.unpriced:
        print_line(out, f"{outcome.unpriced} downgraded calls have no price: add their model to the rate card", "red")
    messages = _messages(outcome)
    print_line(out, ", ".join(f"{count} {name}" for name, count in messages.items()) + " would have been sent")
    _table(out, "Budgets", ("budget", "period from", "amount", "recorded", "simulated", "over"), [
        (a.budget_id, format_instant(a.period_start), *map(display_usd, (
            a.amount_nanos, outcome.recorded.get((a.scope, a.period_start), 0), a.spent_nanos,
            max(0, a.spent_nanos - a.amount_nanos),
        )))
        for a in outcome.accounts
    ])  # fmt: skip
    _table(out, "Throttled", ("budget", "scope", "what", "from", "to"), [
        (h.budget_id, h.scope, h.action, format_instant(h.start), format_instant(h.end) if h.end else "still")
        for h in outcome.held
    ])  # fmt: skip
    _table(out, "By budget", ("budget", *FATES, "saved net"), [
        (budget_id, *(str(fates.get(fate, Tally()).calls) for fate in FATES), _saved(fates))
        for budget_id, fates in sorted(outcome.by_budget.items())
    ])  # fmt: skip
    _table(out, "By feature", ("team", "feature", *FATES, "passed", "saved net"), [
        (*names, *(str(fates.get(fate, Tally()).calls) for fate in (*FATES, "passed")), _saved(fates))
        for names, fates in _ranked(outcome)
    ])  # fmt: skip
    opened = [alert for alert in outcome.alerts if alert.status == "opened" and alert.tier != "note"]
    _table(out, "Pages and tickets", ("at", "tier", "what"), [(a.stated_at, a.tier, a.summary) for a in opened])


def _saved(fates: dict[Fate, Tally]) -> str:
    return display_usd(sum(tally.saved_nanos for tally in fates.values()))


def _table(out: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    print_line(out, "")
    print_line(out, title, "bold")
    print_table(
        out, columns, rows[:ROWS_SHOWN], numbers=("amount", "recorded", "simulated", "over", "saved net", "passed")
    )
    if len(rows) > ROWS_SHOWN:
        print_line(out, f"… and {len(rows) - ROWS_SHOWN} more: --json has them all")
