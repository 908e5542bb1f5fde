"""What follows alerts by time alone: a review for each critical one, and the week's digest on Monday morning.

Every worker that notifies does both. Reviews and reports have derived ids and are written once, whoever comes first.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import NamedTuple

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
    ) -> None:
        """``review_us``: how long there is for a review; 0: none are opened. ``owners``: for ``review_of``."""
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
        wanted = [review_of(each.alert, each.recorded_at, self._review_us, self._owners) for each in found]
        opened = [review for review in wanted if review is not None]
        if opened:
            await self._reviews.open(opened)
            logger.info("%d reviews of critical alerts were opened", len(opened))

    async def tell_weeks(self) -> None:
        """The digest of every team whose Monday morning it is, and of the models; each once a week."""
        if not self._digests.receivers:
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
        if week.timezone == self._digests.timezone and teams and (MODELS, "") not in told:
            facts = await facts_from(self._weeks, "all", "", week, now)
            await self._tell(MODELS, facts, models_report(facts), self._digests.leads.get("*", ""))
        for team in teams:
            if zone_of.get(team, self._digests.timezone) == week.timezone and ("team", team) not in told:
                facts = await facts_from(self._weeks, "team", team, week, now)
                await self._tell("team", facts, report_of(facts), await self._lead(team))

    async def _lead(self, team: str) -> str:
        return self._digests.leads.get(team) or await self._weeks.owner(team) or self._digests.leads.get("*", "")

    async def _tell(self, subject: str, facts: Facts, report: Report, owner: str) -> None:
        said = notifications_of(report, facts, subject, self._digests.receivers, owner)
        body = {"heading": report.heading, "paragraphs": list(report.paragraphs)}
        if await self._weeks.tell(subject, facts.name, facts.week.monday, body, said, facts.now):
            logger.info("the digest of week %s is owed: %s %s", facts.week.name, subject, facts.name)
