"""Which receivers hear of an alert. The default ladder: pages wake on-call, critical goes to Slack, warnings to the
owner's mail, everything else is only shown on the dashboard."""

from collections.abc import Collection

from schemas.alerts import Alert

PAGERDUTY = "pagerduty"
SLACK = "slack"
EMAIL = "email"


def receivers_of(alert: Alert, configured: Collection[str]) -> tuple[str, ...]:
    """The receivers of one alert statement, among those configured.

    An opened alert and its resolution have the same tier and severity, so they take the same way.

    >>> from schemas.alerts import Alert
    >>> page = Alert(alert_id="a", dedup_key="k", episode=1, status="opened", severity="emergency", tier="page",
    ...     rule="budget_threshold", scope_type="budget", scope_id="b", summary="s", occurred_at="", stated_at="")
    >>> receivers_of(page, ["pagerduty", "slack", "email"])
    ('pagerduty', 'slack')
    """
    if alert.historic or alert.tier == "note":
        wanted: tuple[str, ...] = ()
    elif alert.rule == "approval_wanted":
        # A lead without a mail server would never hear of it.
        wanted = (EMAIL, SLACK)
    elif alert.tier == "page":
        wanted = (PAGERDUTY, SLACK)
    elif alert.severity in ("critical", "emergency"):
        wanted = (SLACK,)
    else:
        wanted = (EMAIL,)
    return tuple(name for name in wanted if name in configured)
