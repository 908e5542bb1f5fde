"""The routes without a file: pages wake on-call and are seen in Slack, what is critical goes to Slack, the rest by mail
to its owner."""

from collections.abc import Collection

from streams.core.inhibition import BUILT_IN as INHIBITIONS
from streams.core.notifying import Matcher
from streams.core.placing import EACH
from streams.core.routes import BUILT_IN, DASHBOARD, Integration, ReceiverRule, Route, Routes


def built_in_receivers(configured: Collection[str]) -> dict[str, ReceiverRule]:
    """``pagerduty``, ``slack`` and ``email`` as the settings have them, empty where they do not, and the dashboard."""
    found = {DASHBOARD: ReceiverRule(DASHBOARD, ())}
    for kind in BUILT_IN:
        integrations = (Integration(kind, kind, pages=kind == "pagerduty"),) if kind in configured else ()
        found[kind] = ReceiverRule(kind, integrations)
    return found


def default_routes(configured: Collection[str]) -> Routes:
    """The built-in tree over those of ``pagerduty``, ``slack`` and ``email`` that the settings configure.

    Every alert is a group of its own, told at once and never repeated.
    """

    def route(name: str, *receivers: str, matchers: tuple[Matcher, ...], routes: tuple[Route, ...] = ()) -> Route:
        return Route(name, matchers, receivers, (EACH,), wait_us=0, interval_us=0, routes=routes)

    root = route(
        "default",
        "email",
        matchers=(),
        routes=(
            # A lead without a mail server would never hear of it.
            route("default/approvals", "email", "slack", matchers=(Matcher("rule", "=", "approval_wanted"),)),
            # Whichever of them it is that takes nothing, the other hears of it.
            route(
                "default/delivery",
                "email",
                "slack",
                matchers=(Matcher("rule", "=", "delivery_failing"), Matcher("tier", "=", "ticket")),
            ),
            route("default/pages", "pagerduty", "slack", matchers=(Matcher("tier", "=", "page"),)),
            route("default/critical", "slack", matchers=(Matcher("severity", "=~", "critical|emergency"),)),
        ),
    )
    return Routes(root, built_in_receivers(configured), INHIBITIONS)
