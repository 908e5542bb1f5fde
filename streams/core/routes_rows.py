"""The entries of ``routes.yaml`` as people write them; each becomes a value of ``routes``."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from schemas.alerts import Severity
from schemas.instants import DAY, HOUR, MINUTE, SECOND
from streams.core.budget_rows import WEEKDAYS, Note, Slug, Zone
from streams.core.budget_rungs import Text, Texts, listed
from streams.core.matchers import matcher, parse_matcher
from streams.core.notifying import Matcher
from streams.core.routes import (
    Email,
    Escalation,
    Inhibition,
    Owner,
    PagerDuty,
    QuietHours,
    Quiets,
    RateLimit,
    Slack,
    Span,
    Target,
    Webhook,
)  # fmt: skip

DURATION_US_MAX = 90 * DAY
_DURATION = re.compile(r"(\d{1,7})\s*(ms|s|m|h|d)")
_UNITS = {"ms": SECOND // 1_000, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_HOURS = re.compile(r"([a-z, -]+?)\s+(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)")
_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:\S.*")
_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,188}[A-Za-z0-9])?")


def duration_us(text: str) -> int:
    """Microseconds of ``30s``, ``10m``, ``4h`` or ``2d``; ``never`` is 0.

    Raises:
        ValueError: it is none, or more than 90 days.
    """
    if text.strip() == "never":
        return 0
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text[:40]!r} is no duration, such as 30s, 10m, 4h or 2d")
    micros = int(found[1]) * _UNITS[found[2]]
    if micros > DURATION_US_MAX:
        raise ValueError("is longer than 90 days (90d)")
    return micros


def span_of(text: str) -> Span:
    """The hours of ``mon-fri 19:00-07:00``, ``sat,sun 00:00-24:00`` or ``daily 22:00-06:00``.

    Raises:
        ValueError: it is none of these.
    """
    found = _HOURS.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(
            f"{text[:60]!r} is not of the form mon-fri 19:00-07:00, sat,sun 00:00-24:00 or daily 22:00-06:00"
        )
    start, end = (int(hour) * 60 + int(minute) for hour, minute in ((found[2], found[3]), (found[4], found[5])))
    if start >= 1440 or end > 1440 or int(found[3]) > 59 or int(found[5]) > 59:
        raise ValueError(f"{text[:60]!r} has no time of day from 00:00 to 24:00")
    if start == end:
        raise ValueError("begins and ends at the same time; the whole day is 00:00-24:00")
    return Span(_days(found[1]), start, end)


def _days(text: str) -> tuple[int, ...]:
    if text.strip() in ("daily", "every day"):
        return tuple(range(7))
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = (each.strip() for each in part.partition("-"))
        begin, end = _day(first), _day(last or first)
        found.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return tuple(sorted(found))


def _day(text: str) -> int:
    for place, name in enumerate(WEEKDAYS):
        if text and text in (name, name[:3]):
            return place
    raise ValueError(f"{text[:20]!r} is no day of the week; there are mon, tue, wed, thu, fri, sat, sun and daily")


def _matchers(value: object) -> object:
    if isinstance(value, dict):
        return [matcher(str(label), "=", str(text)) for label, text in value.items()]
    return [parse_matcher(each) if isinstance(each, str) else each for each in _as_list(value)]


def _as_list(value: object) -> list[object]:
    found = listed(value)
    return found if isinstance(found, list) else [found]


def _reference(value: str) -> str:
    # Not the value itself: it may be the secret.
    if not _REFERENCE.fullmatch(value):
        raise ValueError("is a secret, and secrets are not written here: give env:NAME or file:PATH")
    return value


def _web(value: str) -> str:
    if not (value.startswith(("https://", "http://")) or _REFERENCE.fullmatch(value)):
        raise ValueError("is no web address: https://…, or env:NAME or file:PATH where it is secret")
    return value


def address(value: str) -> str:
    """A mail address.

    Raises:
        ValueError: it is none.
    """
    if not _ADDRESS.fullmatch(value):
        raise ValueError(f"{value[:80]!r} is no mail address")
    return value


def _recipient(value: str) -> str:
    return value if value == "owner" else address(value)


Duration = Annotated[int, BeforeValidator(lambda value: duration_us(str(value)))]
Secret = Annotated[str, AfterValidator(_reference)]
Address = Annotated[str, AfterValidator(address)]
Matchers = Annotated[list[Matcher], BeforeValidator(_matchers), Field(max_length=32)]
Names = Annotated[list[Slug], BeforeValidator(listed), Field(min_length=1, max_length=16)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class PagerDutyRow(_Row):
    """An Events v2 integration."""

    routing_key: Secret

    def target(self) -> Target:
        """As the core knows it."""
        return PagerDuty(self.routing_key)


class SlackRow(_Row):
    """A Slack channel."""

    webhook_url: Secret | None = None
    bot_token: Secret | None = None
    channel: Note = ""

    @model_validator(mode="after")
    def _is_one(self) -> "SlackRow":
        if bool(self.webhook_url) == bool(self.bot_token):
            raise ValueError("takes webhook_url, or bot_token and channel")
        if bool(self.bot_token) != bool(self.channel):
            raise ValueError("bot_token and channel go together; a webhook_url has its channel already")
        return self

    def target(self) -> Target:
        """As the core knows it."""
        return Slack(self.webhook_url or "", self.bot_token or "", self.channel)


class EmailRow(_Row):
    """Mail addresses, ``owner`` among them or not."""

    to: Annotated[
        list[Annotated[str, AfterValidator(_recipient)]], BeforeValidator(listed), Field(min_length=1, max_length=50)
    ]

    def target(self) -> Target:
        """As the core knows it."""
        return Email(tuple(self.to))


class WebhookRow(_Row):
    """A Standard Webhooks endpoint."""

    url: Annotated[str, AfterValidator(_web)]
    secret: Secret

    def target(self) -> Target:
        """As the core knows it."""
        return Webhook(self.url, self.secret)


class RateLimitRow(_Row):
    """At most so many messages in so long."""

    messages: int = Field(ge=1, le=1_000_000)
    per: Duration

    @field_validator("per")
    @classmethod
    def _is_some(cls, value: int) -> int:
        if value < SECOND:
            raise ValueError("is a second (1s) at least")
        return value

    def limit(self) -> RateLimit:
        """As the core knows it."""
        return RateLimit(self.messages, self.per)


def _one_or_more(value: object) -> object:
    return value if isinstance(value, list) else [value]


class ReceiverRow(_Row):
    """One receiver."""

    name: Slug
    pagerduty: Annotated[list[PagerDutyRow], BeforeValidator(_one_or_more)] = []
    slack: Annotated[list[SlackRow], BeforeValidator(_one_or_more)] = []
    email: Annotated[list[EmailRow], BeforeValidator(_one_or_more)] = []
    webhook: Annotated[list[WebhookRow], BeforeValidator(_one_or_more)] = []
    #: Whether its webhooks wake somebody, as PagerDuty does.
    pages: bool = False
    fallback: Note = ""
    rate_limit: RateLimitRow | None = None


class EscalationRow(_Row):
    """Whom to tell when nobody has acknowledged for so long."""

    after: Duration
    to: Names

    @field_validator("after")
    @classmethod
    def _is_some(cls, value: int) -> int:
        if value < 10 * SECOND:
            raise ValueError("is ten seconds (10s) at least: people need time to answer")
        return value

    def escalation(self) -> Escalation:
        """As the core knows it."""
        return Escalation(self.after, tuple(self.to))


class RouteRow(_Row):
    """One route; what it does not say it has from the route above."""

    match: Matchers = []
    receiver: Names | None = None
    #: Whether the routes after it are asked too.
    continue_: bool = Field(False, alias="continue")
    group_by: Texts | None = None
    group_wait: Duration | None = None
    group_interval: Duration | None = None
    repeat_interval: Duration | None = None
    quiet_hours: Annotated[list[Slug], BeforeValidator(listed)] | None = None
    escalate: list[EscalationRow] | None = Field(None, max_length=8)
    routes: list["RouteRow"] = Field(default=[], max_length=1_000)


class QuietHoursRow(_Row):
    """Hours in which people rest."""

    name: Slug
    timezone: Zone
    hours: Annotated[
        list[Annotated[Span, BeforeValidator(lambda text: span_of(str(text)))]],
        BeforeValidator(listed),
        Field(min_length=1, max_length=50),
    ]
    pass_: Annotated[list[Severity], BeforeValidator(listed)] = Field(["emergency"], alias="pass")
    quiets: Quiets = "pages"

    def hours_of(self) -> QuietHours:
        """As the core knows them."""
        return QuietHours(self.name, self.timezone, tuple(self.hours), tuple(self.pass_), self.quiets)


class InhibitionRow(_Row):
    """Alerts that silence others."""

    name: Slug
    source: Annotated[Matchers, Field(min_length=1)]
    target: Annotated[Matchers, Field(min_length=1)]
    equal: Annotated[list[Text], BeforeValidator(listed)] = []
    above: bool = False
    unless_differs: bool = False
    sticky: bool = False
    quiets: Literal["all", "pages"] = "all"
    wait: Duration = 0

    def inhibition(self) -> Inhibition:
        """As the core knows it."""
        return Inhibition(
            self.name, tuple(self.source), tuple(self.target), tuple(self.equal), self.above, self.unless_differs,
            self.sticky, self.quiets, self.wait,
        )  # fmt: skip


class OwnerRow(_Row):
    """Who answers for a team, a budget, or an owner's name of ``budgets.yaml``."""

    team: Note = ""
    budget: Note = ""
    name: Note = ""
    address: Address | None = None
    receiver: Slug | None = None

    def owner(self) -> Owner:
        """As the core knows it."""
        return Owner(self.team, self.budget, self.name, self.address or "", self.receiver or "")


class RoutesFile(_Row):
    """The whole file."""

    receivers: list[ReceiverRow] = Field(default=[], max_length=1_000)
    route: RouteRow
    inhibit: list[InhibitionRow] = Field(default=[], max_length=200)
    #: Whether what is built in silences too.
    inhibit_defaults: bool = True
    quiet_hours: list[QuietHoursRow] = Field(default=[], max_length=100)
    owners: list[OwnerRow] = Field(default=[], max_length=10_000)
