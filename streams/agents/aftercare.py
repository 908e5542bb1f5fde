"""What follows alerts by time alone: a review for each critical one, and the week's digest on Monday morning.

Every worker that notifies does both. Reviews and reports have derived ids and are written once, whoever comes first.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import NamedTuple

from schemas.alerts import Alert
from schemas.instants import DAY
from streams.aftercare import Reviews, Weeks
from streams.clock import Clock
from streams.core.alert_life import review_of
from streams.core.weekly import Facts, Subject, Week, due_week, facts_of, month_of
from streams.core.weekly_words import Report, models_report, notifications_of, report_of

logger = logging.getLogger("sluice.aftercare")

REVIEW_EVERY_S = 2.0
DIGEST_EVERY_S = 60.0
#: A worker that was away for longer opens no reviews of what it missed: people have moved on.
REVIEW_WITHIN = 2 * DAY
REVIEWS_AT_ONCE = 200
#: Kinds of receivers that a report may go to.
REPORTED = ("email", "slack")
#: The report of all models, beside those of teams.
MODELS = "models"


class Digests(NamedTuple):
    """Who is told of weeks, and when."""

    #: Receivers that are configured; empty: nobody.
    receivers: Collection[str]
    at_hour: int
    timezone: str
    team_timezones: Mapping[str, str]
    #: By team, the address of whoever leads it; ``*``: of all other teams.
    leads: Mapping[str, str]
    #: Teams with receivers of their own, which take the place of the others; ``*``: all other teams.
    team_receivers: Mapping[str, Collection[str]] = {}


async def facts_from(weeks: Weeks, subject: Subject, name: str, week: Week, now: int) -> Facts:
    """What the ledger says of one subject's week."""
    bounds = (week.before().start, week.start, week.end)
    rows = await weeks.week(subject, name, bounds, (month_of(week).start, week.end), now)
    return facts_of(subject, name, week, now, **rows)


class Aftercare:
    """Opens reviews and tells weeks, until cancelled."""

    def __init__(
        self,
        reviews: Reviews,
        weeks: Weeks,
        clock: Clock,
        digests: Digests,
        *,
        review_us: int,
        owners: Mapping[str, str],
        owned: Callable[[Alert], Alert] = lambda alert: alert,
    ) -> None:
        """Bind the parts.

        Args:
            review_us: how long there is for a review; 0: none are opened.
            owners: who answers for a team, as ``review_of`` takes them.
            owned: the alert with the owner that the routes name.
        """
        self._owned = owned
        self._reviews = reviews
        self._weeks = weeks
        self._clock = clock
        self._digests = digests
        self._review_us = review_us
        self._owners = owners
        #: Zones and weeks of which everything was told: the ledger need not be asked again.
        self._done: set[Week] = set()

    async def run_background(self) -> None:
        """Both loops; a database that does not answer is asked again, since nothing here holds up money."""
        await asyncio.gather(
            self._repeat(self.open_reviews, REVIEW_EVERY_S), self._repeat(self.tell_weeks, DIGEST_EVERY_S)
        )

    async def _repeat(self, step: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            try:
                await step()
            except asyncio.CancelledError:
                raise
            except Exception:
                logger.exception("aftercare will be tried again in %.0f s", every_s)
            await asyncio.sleep(every_s)

    async def open_reviews(self) -> None:
        """A review for each episode that was critical and has none."""
        if not self._review_us:
            return
        found = await self._reviews.unreviewed(self._clock.now() - REVIEW_WITHIN, REVIEWS_AT_ONCE)
        wanted = [review_of(self._owned(each.alert), each.recorded_at, self._review_us, self._owners) for each in found]
        opened = [review for review in wanted if review is not None]
        if opened:
            await self._reviews.open(opened)
            logger.info("%d reviews of critical alerts were opened", len(opened))

    async def tell_weeks(self) -> None:
        """The digest of every team whose Monday morning it is, and of the models; each once a week."""
        if not self._digests.receivers and not self._digests.team_receivers:
            return
        now = self._clock.now()
        for timezone in sorted({self._digests.timezone, *self._digests.team_timezones.values()}):
            week = due_week(now, timezone, self._digests.at_hour)
            if week is not None and week not in self._done:
                await self._tell_zone(week, now)
                self._done.add(week)

    async def _tell_zone(self, week: Week, now: int) -> None:
        told = await self._weeks.told(week.monday)
        zone_of = self._digests.team_timezones
        teams = await self._weeks.teams(week.before().start, week.end)
        due = [("team", team) for team in teams if zone_of.get(team, self._digests.timezone) == week.timezone]
        if week.timezone == self._digests.timezone and teams:
            due.insert(0, (MODELS, ""))
        failures: list[Exception] = []
        for subject, name in due:
            if (subject, name) in told:
                continue
            try:
                await self._tell_one(subject, name, week, now)
            except Exception as error:
                # One that cannot be told must not keep the others from their week.
                failures.append(error)
        if failures:
            raise failures[0]

    async def _tell_one(self, subject: str, name: str, week: Week, now: int) -> None:
        facts = await facts_from(self._weeks, "all" if subject == MODELS else "team", name, week, now)
        if subject == MODELS:
            await self._tell(subject, facts, models_report(facts), self._digests.leads.get("*", ""))
        else:
            await self._tell(subject, facts, report_of(facts), await self._lead(name))

    async def _lead(self, team: str) -> str:
        return self._digests.leads.get(team) or await self._weeks.owner(team) or self._digests.leads.get("*", "")

    async def _tell(self, subject: str, facts: Facts, report: Report, owner: str) -> None:
        own = self._digests.team_receivers
        receivers = own.get(facts.name) or own.get("*") if subject == "team" else None
        said = notifications_of(report, facts, subject, receivers or self._digests.receivers, owner)
        if not said:
            return
        body = {"heading": report.heading, "paragraphs": list(report.paragraphs)}
        if await self._weeks.tell(subject, facts.name, facts.week.monday, body, said, facts.now):
            logger.info("the digest of week %s is owed: %s %s", facts.week.name, subject, facts.name)
