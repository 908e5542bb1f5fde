"""What an alert says on any channel: what, where, how much, since when, why, what done, what next."""

from decimal import Decimal, InvalidOperation

from schemas.alerts import Alert, Drivers
from schemas.money import display_usd, parse_nanos

RULE_WORDS = {
    "budget_threshold": "Budget",
    "spend_spike": "Spend spike",
    "runaway_request": "Runaway request",
    "gpu_idle": "Idle GPUs",
    "gpu_below": "GPU below the bar",
    "gpu_bursty": "GPUs that work in bursts",
    "week_over_week": "Cost up on last week",
    "resource_unused": "Unused resource",
    "nonprod_spend": "Spend outside production",
    "recurring_job": "Recurring job",
    "ci_growth": "CI spend grows",
    "run_overdue": "Training run overdue",
    "budget_forecast": "Budget forecast",
    "enforcement_gap": "Enforcement gap",
    "run_estimate": "Training run over its estimate",
    "approval_wanted": "Approval wanted",
    "cells_overflow": "Too many cells",
    "runaway_loop": "Runaway loop",
    "retry_storm": "Retry storm",
    "token_cost": "Cost of a success",
    "regime_change": "Changed habits",
}
NEXT_STEPS = {
    "budget_threshold": "Find who spends it. The gates open once the budget is raised or the period is over.",
    "spend_spike": "Look at the top contributors: a retry loop, a launch, or a new model?",
    "runaway_request": "Find the caller by key or session and check what it puts into its prompts.",
    "gpu_idle": "Release the GPUs, or give them work; check whether their job hangs.",
    "gpu_below": "Nothing: its owner hears of it where it can be taken back.",
    "budget_forecast": "Find what grows (`sluice budgets showback`), or raise the budget before it is spent.",
    "enforcement_gap": "Look whether that gateway runs and reads gateway.commands.v1; what it lets through is spent.",
    "run_estimate": "Ask its owner whether it is worth going on: end it, or announce what it will cost now.",
    "approval_wanted": "The team's lead decides: by the link in the mail to him, or with `sluice runs approve`.",
    "gpu_bursty": "A smaller GPU, a slice of one, or one shared by several would do.",
    "week_over_week": "Look at what changed in that week; expected growth belongs into the budget.",
    "resource_unused": "Stop it, or say whom it serves. `sluice inventory --unused-days 30` has all of them.",
    "nonprod_spend": "Nobody asks it anything: stop what runs there, or schedule it.",
    "recurring_job": "Is its result still wanted, as often as that?",
    "ci_growth": "Cache answers in tests, or use a cheaper model there.",
    "run_overdue": "Ask its owner: end it, or announce more time.",
    "cells_overflow": "Find the producer that invents features, models or projects; or raise team_cells_max.",
    "runaway_loop": "Find the session, task or key and stop it; block the key if nobody answers.",
    "retry_storm": "Look at what the errors say; see that retries back off and give up.",
    "token_cost": "Look at what fails or is asked again, and at what prompts carry along.",
    "regime_change": "Ask what was released: prompts, a cache, a model, a price.",
}


def clip(text: str, length: int) -> str:
    """Text of at most ``length`` characters, with an ellipsis where something was cut.

    >>> clip("abcdef", 4), clip("abc", 4)
    ('abc…', 'abc')
    """
    return text if len(text) <= length else text[: length - 1] + "…"


def one_line(text: str) -> str:
    """Text without line breaks or control characters, so that it cannot break out of a header or a field."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def web_link(text: str) -> str:
    """The text where it is a link that a message may carry, else nothing.

    >>> web_link("https://example.test/runbook"), web_link("javascript:alert(1)"), web_link("https://a|b>")
    ('https://example.test/runbook', '', '')
    """
    is_link = text.startswith(("https://", "http://")) and not any(c in "<>|\"'" or c.isspace() for c in text)
    return text if is_link and text.isprintable() else ""


def title(alert: Alert) -> str:
    """The first line: status where it matters, and the cause."""
    cause = one_line(alert.summary) or one_line(f"{RULE_WORDS[alert.rule]}: {alert.scope_type} {alert.scope_id}")
    return {"opened": "", "updated": "Update: ", "resolved": "Resolved: "}[alert.status] + cause


def amount(text: str, unit: str) -> str:
    """A figure with its unit, dollars as people write them.

    >>> amount("12.5", "USD"), amount("52000", "tokens")
    ('$12.50', '52,000 tokens')
    """
    try:
        if unit == "USD":
            return display_usd(parse_nanos(text))
        return f"{Decimal(text).normalize():,f} {unit}"
    except (ValueError, InvalidOperation):
        return f"{text} {unit}".strip()


def facts(alert: Alert) -> list[tuple[str, str]]:
    """Labelled facts in reading order; what is empty is left out."""
    where = f"{alert.scope_type} {alert.scope_id}"
    found = [
        (
            "Where",
            where + (f", team {alert.team_id}" if alert.team_id and alert.team_id != alert.scope_id else ""),
        ),
        ("Observed", amount(alert.observed, alert.unit) if alert.observed else ""),
        ("Expected", _expected(alert)),
        ("Threshold", alert.threshold),
        ("Since", alert.occurred_at),
        ("At stake", _at_stake(alert)),
        ("Period", f"{alert.period_start} to {alert.period_end}" if alert.period_start else ""),
        ("Drivers", ", ".join(f"{c.name} {amount(c.cost_usd, 'USD')}" for c in alert.top_contributors[:5])),
        ("Why", _why(alert.drivers)),
        ("By", _by(alert.drivers)),
        ("Done", alert.action),
        ("Next", "" if alert.status == "resolved" else NEXT_STEPS.get(alert.rule, "")),
    ]
    return [(name, one_line(value)) for name, value in found if value]


def _expected(alert: Alert) -> str:
    if not alert.expected:
        return ""
    known = alert.expected_low and alert.expected_high
    between = f", usually {amount(alert.expected_low, alert.unit)} to {amount(alert.expected_high, alert.unit)}"
    return amount(alert.expected, alert.unit) + (between if known else "")


def _at_stake(alert: Alert) -> str:
    """What it costs if it goes on; nothing of what is over."""
    if alert.status == "resolved" or not alert.at_stake_per_hour:
        return ""
    month = (
        f", {amount(alert.at_stake_by_month_end, 'USD')} by the end of the month" if alert.at_stake_by_month_end else ""
    )
    return f"{amount(alert.at_stake_per_hour, 'USD')} an hour{month}"


def _why(drivers: Drivers | None) -> str:
    """The parts of an excess, the largest first; what had no part in it is left out."""
    if drivers is None:
        return ""
    parts = [
        ("more requests", drivers.volume),
        ("dearer models", drivers.model_mix),
        ("more tokens per request", drivers.tokens_per_request),
        ("fewer cache hits", drivers.cache),
        ("dearer tokens", drivers.price),
    ]
    found = [(words, text) for words, text in parts if Decimal(text)]
    found.sort(key=lambda each: -Decimal(each[1]))
    return ", ".join(f"{words} {amount(text, 'USD')}" for words, text in found)


def _by(drivers: Drivers | None) -> str:
    return ", ".join(f"{one.kind} {one.name} {amount(one.excess_usd, 'USD')}" for one in drivers.by) if drivers else ""
