"""What an alert says on any channel: what, where, how much, since when, why, what Sluice did, what to do next.

Foreign text (names, summaries) is one line without control characters and of bounded length when it leaves here; each
channel escapes its own markup. What a whole message says is in ``telling``.
"""

from decimal import Decimal, InvalidOperation
from urllib.parse import quote

from schemas.alerts import Alert, Drivers
from schemas.instants import InstantError, parse_instant, to_datetime
from schemas.money import display_usd, parse_nanos

#: A rule that is not here is told in its own name (`rule_words`).
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
    "unusual_hour": "Unusual hour",
    "pipeline_lag": "Sluice lags",
    "ledger_behind": "Ledger behind",
    "dead_letters": "Dead letters",
    "source_silent": "Silent source",
    "unpriced_usage": "Unpriced usage",
    "delivery_failing": "Messages not delivered",
}
#: Our own words: what is in backticks is a command to type.
NEXT_STEPS = {
    "budget_threshold": "Find who spends it. The gates open once the budget is raised or the period is over.",
    "spend_spike": "Look at the top contributors: a retry loop, a launch, or a new model?",
    "runaway_request": "Find the caller by key or session and check what it puts into its prompts.",
    "gpu_idle": "Release the GPUs, or give them work; check whether their job hangs.",
    "gpu_below": "Nothing: its owner hears of it where it can be taken back.",
    "budget_forecast": "Find what grows (`sluice budgets showback`), or raise the budget before it is spent.",
    "enforcement_gap": "Look whether that gateway runs and reads gateway.commands.v1; what it lets through is spent.",
    "run_estimate": "Ask its owner whether it is worth going on: end it, or announce what it will cost now.",
    "approval_wanted": "The team's lead decides: by the link in the mail, or with `sluice runs approve`.",
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
    "unusual_hour": "See what was done or released in that hour; answer `no` if that is normal here.",
    "pipeline_lag": "Run `sluice doctor`: start more workers, or see what holds up those that run. Budgets act late.",
    "ledger_behind": "Run `sluice doctor`; look at PostgreSQL (disk, locks) and at the workers. Nothing is lost.",
    "dead_letters": "See why (`sluice dlq list`), mend producer, limits or rate card, then `sluice dlq replay`.",
    "source_silent": "Look whether it runs and reaches Kafka. What it sends later still counts.",
    "unpriced_usage": "Add the model to the rate card and restart METER; what was counted unpriced stays so.",
    "delivery_failing": "Mend the receiver's address, key or network; what is owed goes out by itself then.",
}
#: For a rule that has no step of its own.
ANY_STEP = "Look at it on the dashboard: who spends there, and since when?"

#: What was done about an alert that commanded nothing.
ONLY_TOLD = "only this message; nothing is throttled"
#: Of one fact; what is longer is cut with an ellipsis.
FACT_MAX = 1_000
SUMMARY_MAX = 1_024
NAME_MAX = 200
LABELS_MAX = 6
CONTRIBUTORS_MAX = 5
#: Rules whose observed figure is a part of their expected one, the budget.
_OF_BUDGET = frozenset({"budget_threshold", "budget_forecast", "run_estimate"})


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


def runbook(alert: Alert, template: str = "") -> str:
    """The alert's own runbook, or the operator's for its rule (``{rule}`` in ``template``); nothing where neither is.

    >>> from schemas.alerts import Alert
    >>> found = Alert(alert_id="a", dedup_key="k", episode=1, status="opened", severity="info", tier="note",
    ...     rule="gpu_idle", scope_type="gpu", scope_id="g", summary="s", occurred_at="", stated_at="")
    >>> runbook(found, "https://wiki.example/{rule}"), runbook(found)
    ('https://wiki.example/gpu_idle', '')
    """
    return web_link(alert.runbook) or web_link(template.replace("{rule}", quote(alert.rule, safe="")))


def rule_words(rule: str) -> str:
    """What a rule is called; one that is new here is told by its own name.

    >>> rule_words("gpu_bursty"), rule_words("silent_source")
    ('GPUs that work in bursts', 'Silent source')
    """
    return RULE_WORDS.get(rule) or one_line(rule.replace("_", " ")).capitalize() or "Alert"


def next_step(alert: Alert) -> str:
    """What to do; nothing once it is over."""
    return "" if alert.status == "resolved" else NEXT_STEPS.get(alert.rule, ANY_STEP)


def cause(alert: Alert) -> str:
    """The alert in one line: its summary, or what stands for one."""
    made_up = f"{rule_words(alert.rule)}: {alert.scope_type} {alert.scope_id}"
    return clip(one_line(alert.summary) or one_line(made_up), SUMMARY_MAX)


def amount(text: str, unit: str) -> str:
    """A figure with its unit, dollars as people write them.

    >>> amount("12.5", "USD"), amount("52000", "tokens"), amount("19.5", "%")
    ('$12.50', '52,000 tokens', '19.5 %')
    """
    try:
        if unit == "USD":
            return display_usd(parse_nanos(text))
        return f"{Decimal(text).normalize():,f} {unit}".strip()
    except (ValueError, InvalidOperation):
        return f"{text} {unit}".strip()


def moment(text: str) -> str:
    """An instant as people read it, to the minute; what is none stays as it is.

    >>> moment("2026-11-21T14:32:07Z"), moment("today")
    ('2026-11-21 14:32 UTC', 'today')
    """
    try:
        return f"{to_datetime(parse_instant(text)):%Y-%m-%d %H:%M} UTC"
    except (InstantError, OverflowError):
        return text


def span(start: str, end: str) -> str:
    """From when to when, without saying a day twice.

    >>> span("2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"), span("2026-11-21T14:00:00Z", "2026-11-21T15:00:00Z")
    ('2026-11-21 00:00 to 2026-11-22 00:00 UTC', '2026-11-21 14:00 to 15:00 UTC')
    """
    if not end:
        return f"since {moment(start)}"
    first, last = moment(start).removesuffix(" UTC"), moment(end)
    return f"{first} to {last.removeprefix(first[:11]) if last[:11] == first[:11] else last}"


def where(alert: Alert) -> str:
    """The scope, and what more is known of the place."""
    said = {alert.scope_id}
    parts = [f"{alert.scope_type} {clip(alert.scope_id, NAME_MAX)}"]
    more = [("team", alert.team_id), ("feature", alert.feature), *sorted(alert.labels.items())[:LABELS_MAX]]
    for name, value in more:
        if value and value not in said:
            said.add(value)
            parts.append(f"{clip(name.replace('_', ' '), 40)} {clip(value, NAME_MAX)}")
    return one_line(", ".join(parts))


def how_much(alert: Alert) -> str:
    """The figures of an alert: what was seen beside what was to be seen, and the bar between them."""
    observed = amount(alert.observed, alert.unit) if alert.observed else ""
    expected = amount(alert.expected, alert.unit) if alert.expected else ""
    bar = amount(alert.threshold, alert.unit) if _number(alert.threshold) is not None else alert.threshold
    if alert.rule in _OF_BUDGET and observed and expected:
        seen = f"{observed} of {expected}"
        return f"{seen} ({bar})" if bar else seen
    times = _times(alert.observed, alert.expected)
    parts = [
        observed if not times else f"{observed}, {times} the expected {expected}",
        "" if times or not expected else f"expected {expected}",
        _usually(alert),
        f"bar {bar}" if bar else "",
    ]
    return ", ".join(part for part in parts if part)


def _times(observed: str, expected: str) -> str:
    seen, usual = _number(observed), _number(expected)
    if seen is None or not usual or usual < 0 or seen < usual * Decimal("1.05"):
        return ""
    ratio = seen / usual
    return f"{ratio:,.0f}×" if ratio >= 100 else f"{ratio:.1f}×"


def _number(text: str) -> Decimal | None:
    try:
        found = Decimal(text)
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def since(alert: Alert) -> tuple[str, str]:
    """When it began; of what is over, when it ended."""
    began, said = moment(alert.occurred_at), moment(alert.stated_at)
    if alert.status != "resolved":
        return "Since", began
    return ("Ended", said) if began == said else ("Since", f"{began}, ended {said}")


def facts(alert: Alert) -> list[tuple[str, str]]:
    """Labelled facts in reading order; what is empty is left out. Of what is over, nothing is asked any more."""
    told = "" if alert.status == "resolved" else ONLY_TOLD
    by = _by(alert.drivers)
    found = [
        ("Where", where(alert)),
        ("How much", how_much(alert)),
        since(alert),
        ("At stake", _at_stake(alert)),
        ("Period", span(alert.period_start, alert.period_end) if alert.period_start else ""),
        ("Why", _why(alert.drivers)),
        ("By", by),
        ("Drivers", "" if by else _contributors(alert)),
        ("Done", alert.action or told),
        ("Next", next_step(alert)),
    ]
    return [(name, clip(one_line(value), FACT_MAX)) for name, value in found if value]


def brief(alert: Alert) -> str:
    """Where, how much and since when on one line, for an alert among others."""
    label, instant = since(alert)
    when = f"{label.lower()} {instant}"
    return clip(one_line(" · ".join(part for part in (where(alert), how_much(alert), when) if part)), FACT_MAX)


def _contributors(alert: Alert) -> str:
    shown = alert.top_contributors[:CONTRIBUTORS_MAX]
    said = ", ".join(f"{clip(c.name, NAME_MAX)} {amount(c.cost_usd, 'USD')}" for c in shown)
    left = len(alert.top_contributors) - len(shown)
    return f"{said} and {left} more" if left else said


def _usually(alert: Alert) -> str:
    if not (alert.expected_low and alert.expected_high):
        return ""
    return f"usually {amount(alert.expected_low, alert.unit)} to {amount(alert.expected_high, alert.unit)}"


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
    if drivers is None:
        return ""
    shown = drivers.by[:CONTRIBUTORS_MAX]
    said = ", ".join(f"{one.kind} {clip(one.name, NAME_MAX)} {amount(one.excess_usd, 'USD')}" for one in shown)
    left = len(drivers.by) - len(shown)
    return f"{said} and {left} more" if left else said
