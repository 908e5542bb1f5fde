"""``sluice runs``, ``grants`` and ``release``: what runs announced, who may use what, and opening every gate."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from schemas.budgets import Run
from schemas.instants import SECOND, format_instant
from schemas.money import display_usd
from streams.clock import WallClock
from streams.commands.budgets import day_minute, print_json
from streams.commands.desk import Desk, desk, switch
from streams.commands.printing import Cell, print_line, print_table
from streams.core import approvals
from streams.core.approvals import RunError, Verdict
from streams.core.defining import RequestError, Wrong, grant_of, run_of, said, until
from streams.core.letters import escaped
from streams.core.releasing import LONGEST, end_release, is_live
from streams.core.releasing import release as release_command
from streams.settings import Settings
from streams.web.releasing import shown as shown_release
from streams.web.runs import asked_of, bounds_from, link_to
from streams.web.runs import shown as shown_run

#: Exit codes of ``announce`` and ``show``: it waits for its approval, or must not run.
WAITS, MUST_NOT = 4, 5
STYLES = {"announced": "bold yellow", "approved": "green", "refused": "bold red", "ended": "dim", "recorded": ""}


def _text(where: str, text: str) -> str:
    try:
        return said(text)
    except ValueError as error:
        raise RequestError([Wrong(where, str(error))]) from error


def _code(run: Run) -> int:
    return {"announced": WAITS, "refused": MUST_NOT, "ended": MUST_NOT}.get(run.state, 0)


def _print_run(settings: Settings, run: Run, as_json: bool, out: Console) -> int:
    bounds = bounds_from(settings)
    if as_json:
        print_json(out, shown_run(run, bounds))
    else:
        print_line(out, f"run {run.id} of team {escaped(run.team_id)}: {run.state}", STYLES[run.state] or "bold")
        print_line(out, f"  {escaped(approvals.standing(run, bounds))}")
    return _code(run)


def _named(at: Desk, run_id: str) -> Run:
    found = at.known.runs.get(f"run|{run_id}")
    if found is None:
        raise RunError(f"no run {run_id!r} was announced; see `sluice runs list`")
    return found


async def announce(
    settings: Settings, run_id: str, team: str, estimate: str, hours: int, auto_shutdown: bool, stop_at: int, why: str,
    by: str, as_json: bool, out: Console,
) -> int:  # fmt: skip
    """Put a run on record: 0 where it may run, 4 where it waits for its team's lead."""
    wanted = run_of(
        run_id, team=team, estimate_usd=estimate, hours=hours, auto_shutdown=auto_shutdown, stop_at_percent=stop_at,
        owner=by,
    )  # fmt: skip
    async with desk(settings) as at:
        run = approvals.announce(wanted, at.known.runs.get(wanted.key()), bounds_from(settings), at.now)
        await at.store.publish([run], by=by, reason=why.strip() or "announced")
    return _print_run(settings, run, as_json, out)


async def decide(
    settings: Settings, run_id: str, verdict: Verdict, why: str, by: str, as_json: bool, out: Console
) -> int:
    """Approve or refuse, in the operator's name."""
    reason = _text("--why", why)
    async with desk(settings) as at:
        run = approvals.decide(_named(at, run_id), verdict, by, at.now, reason)
        await at.store.publish([run], by=by, reason=reason)
    _print_run(settings, run, as_json, out)
    return 0


async def end(settings: Settings, run_id: str, outcome: str, by: str, as_json: bool, out: Console) -> int:
    """Say that a run is over."""
    async with desk(settings) as at:
        run = approvals.end(_named(at, run_id), " ".join(outcome.split()))
        await at.store.publish([run], by=by, reason=run.outcome or "ended")
    _print_run(settings, run, as_json, out)
    return 0


async def show(settings: Settings, run_id: str, as_json: bool, out: Console) -> int:
    """Where a run stands: 0 where it may run, 4 where it waits, 5 where it must not."""
    async with desk(settings) as at:
        run = _named(at, run_id)
        asked = (await asked_of(at.pool, [run.id])).get(run.id, [])
    if as_json:
        print_json(out, shown_run(run, bounds_from(settings)) | {"commands": asked})
        return _code(run)
    code = _print_run(settings, run, as_json, out)
    for each in asked:
        style = "" if each["answers"] else "bold yellow"
        print_line(out, f"  {each['action']} at {each['issued_at'][:19]}Z: {_answers(each)}", style)
    return code


def _answers(asked: Mapping[str, Any]) -> str:
    """What became of a command, in words."""
    said = [
        f"{escaped(answer['executor'])}: {answer['outcome']} at {answer['applied_at'][:19]}Z"
        + (f", {escaped(answer['detail'])}" if answer["detail"] else "")
        for answer in asked["answers"]
    ]
    return "; ".join(said) or "nobody has answered"


def _last_word(asked: Sequence[Mapping[str, Any]]) -> Cell:
    """What was last commanded, for a table."""
    if not asked:
        return ""
    last = asked[-1]
    if not last["answers"]:
        return (f"{last['action']}, no answer", "bold yellow")
    return ", ".join(dict.fromkeys(f"{answer['outcome']}" for answer in last["answers"]))


async def show_list(settings: Settings, team: str, state: str, as_json: bool, out: Console) -> int:
    """Every run, the newest first."""
    async with desk(settings) as at:
        found = sorted(
            (run for run in at.known.runs.values() if team in ("", run.team_id) and state in ("", run.state)),
            key=lambda run: (-run.announced_at, run.id),
        )
        asked = await asked_of(at.pool, [run.id for run in found])
    if as_json:
        bounds = bounds_from(settings)
        print_json(out, {"runs": [shown_run(run, bounds) | {"commands": asked.get(run.id, [])} for run in found]})
        return 0
    if not found:
        print_line(out, "no runs were announced" + (" of this choice" if team or state else ""))
        return 0
    columns = ("run", "team", "estimate", "state", "decided by", "announced (UTC)", "commanded")
    rows: list[list[Cell]] = [
        [
            run.id, escaped(run.team_id), display_usd(run.estimate_nanos), (run.state, STYLES[run.state]),
            escaped(run.decided_by), day_minute(format_instant(run.announced_at)), _last_word(asked.get(run.id, [])),
        ]
        for run in found
    ]  # fmt: skip
    print_table(out, columns, rows, columns[2:3])
    return 0


async def link(settings: Settings, run_id: str, to: str, ends: str, as_json: bool, out: Console) -> int:
    """A signed link for the team's lead."""
    async with desk(settings) as at:
        made = link_to(settings, _named(at, run_id), to, ends, at.now)
    if as_json:
        print_json(out, made)
    else:
        print_line(out, made["url"])
    return 0


# -- grants ---------------------------------------------------------------------------------------------------------


async def show_grants(settings: Settings, as_json: bool, out: Console) -> int:
    """Expensive models, and which team may use them."""
    async with desk(settings) as at:
        grants = sorted(at.known.grants.values(), key=lambda grant: (grant.model, grant.team_id))
    expensive = [grant.model for grant in grants if not grant.team_id]
    if as_json:
        given = [
            {
                "team": grant.team_id, "model": grant.model,
                "until": format_instant(grant.until) if grant.until else None,
                "by": grant.changed_by, "reason": grant.reason,
            }
            for grant in grants if grant.team_id
        ]  # fmt: skip
        print_json(out, {"expensive_models": expensive, "grants": given})
        return 0
    print_line(out, f"expensive: {', '.join(map(escaped, expensive)) or 'no model is marked so'}")
    rows: list[list[Cell]] = [
        [
            escaped(grant.team_id), escaped(grant.model),
            ("over", "dim") if grant.until and grant.until <= at.now
            else day_minute(format_instant(grant.until)) if grant.until else "for good",
            escaped(grant.changed_by), escaped(grant.reason),
        ]
        for grant in grants if grant.team_id
    ]  # fmt: skip
    if rows:
        print_table(out, ("team", "model", "until (UTC)", "by", "why"), rows)
    return 0


async def grant(
    settings: Settings, team: str, model: str, ends: str, why: str, by: str, as_json: bool, out: Console
) -> int:
    """Let a team use an expensive model."""
    async with desk(settings) as at:
        found = grant_of(team=team, model=model, ends=ends, why=why, by=by, now=at.now)
        await at.store.publish([found], by=by, reason=found.reason)
    stop = format_instant(found.until - found.until % SECOND) if found.until else ""
    if as_json:
        print_json(out, {"team": found.team_id, "model": found.model, "until": stop or None, "by": by})
    else:
        print_line(out, f"team {found.team_id} may use {found.model} {f'until {stop}' if stop else 'for good'}")
    return 0


# -- release --------------------------------------------------------------------------------------------------------


async def release(settings: Settings, ends: str, why: str, by: str, as_json: bool, out: Console) -> int:
    """Open every gate until a time."""
    now = WallClock().now()
    reason = _text("--why", why)
    try:
        stop = until(ends, now, LONGEST)
    except ValueError as error:
        raise RequestError([Wrong("--for", str(error))]) from error
    async with switch(settings) as gates:
        command = release_command(await gates.current(), stop, by, reason, now)
        await gates.say(command)
    if as_json:
        print_json(out, shown_release(command, now))
    else:
        print_line(out, f"every gate is open until {format_instant(stop - stop % SECOND)}", "bold yellow")
        print_line(out, "end it earlier with: sluice release --end --why …", "dim")
    return 0


async def stop_release(settings: Settings, why: str, by: str, as_json: bool, out: Console) -> int:
    """End the release. 1 where none is in force."""
    now = WallClock().now()
    reason = _text("--why", why)
    async with switch(settings) as gates:
        previous = await gates.current()
        live = is_live(previous, now)
        if live:
            await gates.say(end_release(previous, by, reason, now))
    if as_json:
        print_json(out, {"ended": live})
    else:
        print_line(out, "the release is over; what budgets say holds again" if live else "no release is in force")
    return 0 if live else 1


async def show_release(settings: Settings, as_json: bool, out: Console) -> int:
    """Whether every gate is open now."""
    now = WallClock().now()
    async with switch(settings) as gates:
        found = shown_release(await gates.current(), now)
    if as_json:
        print_json(out, found)
    elif found["live"]:
        print_line(out, f"every gate is open until {day_minute(found['until'])} UTC", "bold yellow")
        print_line(out, escaped(found["reason"]))
    else:
        print_line(out, "no release is in force")
    return 0
