"""Where alerts go, as values: the tree of routes, the receivers with their integrations, owners, rules of muting.

Read from ``routes.yaml`` by ``routes_file``; without a file ``routes_default`` has the built-in tree. Durations are
microseconds.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

from schemas.alerts import Severity
from streams.core.notifying import Matcher

Kind = Literal["pagerduty", "slack", "email", "webhook"]
#: What a rule of muting holds back: everything, or only what wakes somebody.
Quiets = Literal["all", "pages"]
#: The receiver that is nobody: the dashboard shows every alert anyway.
DASHBOARD = "dashboard"
#: The receiver that ``owners`` names for an alert's budget or team.
OWNER = "owner"
#: The receivers that the settings configure; they may be named without being defined.
BUILT_IN: tuple[Kind, ...] = ("pagerduty", "slack", "email")


class PagerDuty(msgspec.Struct, frozen=True, tag="pagerduty"):
    """An Events v2 integration; secrets are references, ``env:NAME`` or ``file:PATH``."""

    routing_key: str


class Slack(msgspec.Struct, frozen=True, tag="slack"):
    """A channel, by incoming webhook (no threads) or by bot token; exactly one of both is there."""

    webhook_url: str = ""
    bot_token: str = ""
    channel: str = ""


class Email(msgspec.Struct, frozen=True, tag="email"):
    """Addresses; ``owner`` among them is ``Alert.owner``, which ``owned`` has looked up. The server: the settings."""

    to: tuple[str, ...]


class Webhook(msgspec.Struct, frozen=True, tag="webhook"):
    """A Standard Webhooks endpoint; ``url`` and ``secret`` may be references."""

    url: str
    secret: str


Target = PagerDuty | Slack | Email | Webhook


class Integration(msgspec.Struct, frozen=True):
    """One way to reach the people of a receiver. Outbox, circuit, rate limit and ``Told`` are kept by its id."""

    #: ``<receiver>/<kind>``, ``<receiver>/<kind>/2`` … for more of a kind; ``<kind>`` where the receiver has that name.
    id: str
    kind: Kind
    #: None: as the settings have it (``pagerduty_routing_key``, ``slack_webhook_url``, ``smtp_host`` and ``mail_to``).
    target: Target | None = None
    #: Whether it wakes somebody; what quiet hours and some inhibitions hold back.
    pages: bool = False


class RateLimit(msgspec.Struct, frozen=True):
    """At most ``messages`` in any span of ``per_us``, of each integration; the rest becomes one digest."""

    messages: int
    per_us: int


class ReceiverRule(msgspec.Struct, frozen=True):
    """A receiver by name."""

    name: str
    integrations: tuple[Integration, ...]
    #: The receiver that is told instead while one of the integrations is down; empty: none.
    fallback: str = ""
    rate_limit: RateLimit | None = None


class Span(msgspec.Struct, frozen=True):
    """Hours of some days of the week (0 is Monday), in minutes of the day; one that ends before it starts ends on
    the next day."""

    days: tuple[int, ...]
    start: int
    end: int


class QuietHours(msgspec.Struct, frozen=True):
    """When people shall not be disturbed, in a time zone, and what may pass all the same."""

    name: str
    timezone: str
    spans: tuple[Span, ...]
    passes: tuple[Severity, ...] = ("emergency",)
    quiets: Quiets = "pages"


class Escalation(msgspec.Struct, frozen=True):
    """Who is told when nobody has acknowledged for so long after the first word."""

    after_us: int
    receivers: tuple[str, ...]


class Inhibition(msgspec.Struct, frozen=True):
    """Alerts that silence others while they fire."""

    name: str
    source: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    #: Labels that both must share.
    equal: tuple[str, ...] = ()
    #: The source's budget stands above the target's (``Alert.ancestors``).
    above: bool = False
    #: Not where the target's excess is another than the source's (``inhibition.is_explained``).
    unless_differs: bool = False
    #: What was silenced stays so for its whole episode, also when the source has ended.
    sticky: bool = False
    quiets: Quiets = "all"
    #: How long a possible target waits for a source before it is told: one overspend crosses several budgets at once.
    wait_us: int = 0


class Owner(msgspec.Struct, frozen=True):
    """Who answers for a team or a budget: of ``team``, ``budget`` and ``name`` one is given."""

    team: str = ""
    budget: str = ""
    #: An owner's name as ``budgets.yaml`` has it, where that is no address.
    name: str = ""
    address: str = ""
    receiver: str = ""


class Route(msgspec.Struct, frozen=True):
    """One node of the tree, with what it inherits from above filled in."""

    #: The matchers on the way down: stable while they are, whatever else of the file changes.
    id: str
    matchers: tuple[Matcher, ...]
    #: Names; empty never.
    receivers: tuple[str, ...]
    group_by: tuple[str, ...]
    wait_us: int
    interval_us: int
    #: 0: what is unchanged is not said again.
    repeat_us: int = 0
    #: Whether its siblings are asked too.
    goes_on: bool = False
    quiet: tuple[QuietHours, ...] = ()
    escalations: tuple[Escalation, ...] = ()
    routes: tuple["Route", ...] = ()
    #: Where it is written, for people; 0: built in.
    line: int = 0

    def walk(self) -> Iterator["Route"]:
        """It and everything below it."""
        yield self
        for below in self.routes:
            yield from below.walk()


class Routes(msgspec.Struct, frozen=True):
    """Everything that a file says."""

    root: Route
    receivers: dict[str, ReceiverRule]
    inhibitions: tuple[Inhibition, ...] = ()
    owners: tuple[Owner, ...] = ()

    def route(self, route_id: str) -> Route | None:
        """The route of that id; None where the file has it no more."""
        return next((route for route in self.root.walk() if route.id == route_id), None)

    def integrations(self) -> dict[str, Integration]:
        """Every integration by its id: what the composition root builds receivers of."""
        return {each.id: each for rule in self.receivers.values() for each in rule.integrations}

    def rule_of(self, integration_id: str) -> ReceiverRule | None:
        """The receiver that an integration belongs to: its rate limit and its fallback."""
        for rule in self.receivers.values():
            if any(each.id == integration_id for each in rule.integrations):
                return rule
        return None

    def fallbacks(self, integration_id: str) -> tuple[str, ...]:
        """The integrations that are told instead while this one is down, itself never among them."""
        rule = self.rule_of(integration_id)
        instead = self.receivers.get(rule.fallback) if rule else None
        return tuple(each.id for each in instead.integrations if each.id != integration_id) if instead else ()
