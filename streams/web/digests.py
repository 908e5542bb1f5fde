"""The digest of a week, whenever somebody wants to read it."""

from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Query

from schemas.instants import format_instant
from schemas.money import format_usd
from streams.agents.aftercare import facts_from
from streams.core.defining import RequestError, Wrong
from streams.core.weekly import Facts, Subject, week_of
from streams.core.weekly_words import Report, models_report, report_of
from streams.settings import Settings
from streams.sinks.weekly_reports import WeeklyReports
from streams.web.reading import Parts, Reading

router = APIRouter(tags=["digest"])
Name = Annotated[str, Query(max_length=512)]


@router.get("/v1/digest", summary="The digest of a week: of a team, a model, the models, or everything")
async def read_digest(
    parts: Parts,
    reader: Reading,
    team: Name = "",
    model: Name = "",
    models: Annotated[bool, Query(description="Of every model, a paragraph each.")] = False,
    week: Annotated[str, Query(max_length=32, description="2026-W47, or a day of it; else the last.")] = "",
) -> dict[str, Any]:
    """As it is told on Monday morning. A team's key reads the team's own."""
    if reader.team and team in ("", reader.team) and not model and not models:
        team = reader.team
    elif reader.team:
        reader.sees_all()
    facts, report = await digest_of(parts.pool, parts.settings, team, model, week, parts.clock.now(), models=models)
    return shown(facts, report)


async def digest_of(
    pool: asyncpg.Pool, settings: Settings, team: str, model: str, week: str, now: int, *, models: bool = False
) -> tuple[Facts, Report]:
    """A week's facts and words.

    Raises:
        RequestError: there is no such week.
    """
    subject: Subject = "team" if team else "model" if model else "all"
    timezone = settings.team_timezones.get(team, settings.digest_timezone)
    try:
        wanted = week_of(week, timezone, now)
    except ValueError as error:
        raise RequestError([Wrong("week", str(error))]) from error
    facts = await facts_from(WeeklyReports(pool), subject, team or model, wanted, now)
    return facts, models_report(facts) if models and subject == "all" else report_of(facts)


def shown(facts: Facts, report: Report) -> dict[str, Any]:
    """A digest for people and machines."""
    week = facts.week
    return {
        "subject": facts.subject, "name": facts.name, "week": week.name, "timezone": week.timezone,
        "from": format_instant(week.start), "to": format_instant(week.end), "cost": format_usd(facts.nanos),
        "cost_before": format_usd(facts.nanos_before), "heading": report.heading, "paragraphs": list(report.paragraphs),
    }  # fmt: skip
