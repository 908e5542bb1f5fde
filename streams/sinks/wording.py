"""What an alert says on any channel: what, where, how much, since when, why, what done, what next."""

from decimal import Decimal, InvalidOperation

from schemas.alerts import Alert, Drivers
from schemas.money import display_usd, parse_nanos

RULE_WORDS = {
    "budget_threshold": "Budget",
    "spend_spike": "Spend spike",
    "runaway_request": "Runaway request",
    "gpu_idle": "Idle GPU",
    "cells_overflow": "Too many cells",
    "budget_forecast": "Budget forecast",
    "enforcement_gap": "Enforcement gap",
    "run_estimate": "Training run over its estimate",
    "approval_wanted": "Approval wanted",
    "pipeline_lag": "Sluice lags",
    "ledger_behind": "Ledger behind",
    "dead_letters": "Dead letters",
    "source_silent": "Silent source",
    "unpriced_usage": "Unpriced usage",
    "delivery_failing": "Messages not delivered",
}
NEXT_STEPS = {
    "budget_threshold": "Find who spends it. The gates open once the budget is raised or the period is over.",
    "spend_spike": "Look at the top contributors: a retry loop, a launch, or a new model?",
    "runaway_request": "Find the caller by key or session and check what it puts into its prompts.",
    "gpu_idle": "Release the GPU, or give it work; check whether its job hangs.",
    "cells_overflow": "Find the producer that invents features, models or projects; or raise team_cells_max.",
    "budget_forecast": "Find what grows (`sluice budgets showback`), or raise the budget before it is spent.",
    "enforcement_gap": "Look whether that gateway runs and reads gateway.commands.v1; what it lets through is spent.",
    "run_estimate": "Ask its owner whether it is worth going on: end it, or announce what it will cost now.",
    "approval_wanted": "The team's lead decides: by the link in the mail to him, or with `sluice runs approve`.",
    "pipeline_lag": "Run `sluice doctor`: start more workers, or see what holds up those that run. Budgets act late.",
    "ledger_behind": "Run `sluice doctor`; look at PostgreSQL (disk, locks) and at the workers. Nothing is lost.",
    "dead_letters": "See why (`sluice dlq list`), mend producer, limits or rate card, then `sluice dlq replay`.",
    "source_silent": "Look whether it runs and reaches Kafka. What it sends later still counts.",
    "unpriced_usage": "Add the model to the rate card and restart METER; what was counted unpriced stays so.",
    "delivery_failing": "Mend the receiver's address, key or network; what is owed goes out by itself then.",
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
        ("Expected", amount(alert.expected, alert.unit) if alert.expected else ""),
        ("Threshold", alert.threshold),
        ("Since", alert.occurred_at),
        ("Period", f"{alert.period_start} to {alert.period_end}" if alert.period_start else ""),
        ("Drivers", ", ".join(f"{c.name} {amount(c.cost_usd, 'USD')}" for c in alert.top_contributors[:5])),
        ("Why", _why(alert.drivers)),
        ("By", _by(alert.drivers)),
        ("Done", alert.action),
        ("Next", "" if alert.status == "resolved" else NEXT_STEPS.get(alert.rule, "")),
    ]
    return [(name, one_line(value)) for name, value in found if value]


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
