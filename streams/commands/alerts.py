"""``sluice alerts``: what fires, what was said of it, and what was sent to whom."""

from collections.abc import Mapping
from typing import Any

import asyncpg
from rich.console import Console

from schemas.instants import SECOND, parse_instant
from streams.commands.budgets import day_minute, print_json
from streams.commands.ledger_desk import ledger_desk
from streams.commands.printing import Cell, print_line, print_table
from streams.core.alert_life import LifeError
from streams.core.letters import escaped
from streams.settings import Settings
from streams.sinks import alert_records
from streams.web import queries
from streams.web.alerts import say, shown_all, whole

SEVERITIES = {"emergency": "bold red", "critical": "red", "warning": "yellow", "info": ""}
STAGES = {"firing": "bold", "acknowledged": "green", "silenced": "dim", "inhibited": "dim", "resolved": "dim"}
STATES = {"sent": "green", "given_up": "bold red", "owed": "yellow"}
#: In a table; the whole of it is in ``show``.
SUMMARY_MAX = 90


async def show_list(settings: Settings, status: str, team: str, limit: int, as_json: bool, out: Console) -> int:
    """``list``: alerts as they stand."""
    statuses = {"open": queries.OPEN_STATUSES, "resolved": ("resolved",)}.get(status, ())
    async with ledger_desk(settings) as at:
        rows = await queries.alerts(at.pool, statuses, None, team or None, limit)
        found = await shown_all(at.pool, rows, at.now)
    if as_json:
        print_json(out, {"alerts": found})
        return 0
    if not found:
        print_line(out, f"no {status} alerts" if status != "all" else "no alerts")
        return 0
    columns = ("id", "severity", "stage", "team", "since", "what")
    print_table(out, columns, [_line(each) for each in sorted(found, key=_urgency)])
    return 0


def _urgency(alert: Mapping[str, Any]) -> tuple[bool, bool, bool, int]:
    """What fires and nobody has in hand comes first, the worst before the rest."""
    over, calm = alert["stage"] == "resolved", alert["stage"] != "firing"
    return over, alert["historic"], calm, list(SEVERITIES).index(alert["severity"])


def _line(alert: Mapping[str, Any]) -> list[Cell]:
    severity: Cell = (alert["severity"], SEVERITIES.get(alert["severity"], ""))
    what = alert["summary"] if len(alert["summary"]) <= SUMMARY_MAX else alert["summary"][: SUMMARY_MAX - 1] + "…"
    where = f"{alert['scope_type']} {alert['scope_id']}"
    team = escaped(alert["team_id"] or where)
    return [alert["id"], severity, (stage_words(alert), STAGES[alert["stage"]]), team, _since(alert), escaped(what)]


def _since(alert: Mapping[str, Any]) -> str:
    return day_minute(alert["occurred_at"])


def stage_words(alert: Mapping[str, Any]) -> str:
    """The stage, with whose word it is."""
    word, silence = alert["acknowledged"], alert["silenced"]
    if alert["stage"] == "acknowledged" and word:
        return f"acknowledged by {escaped(word['by'])}"
    if alert["stage"] == "silenced" and silence:
        return f"silenced until {day_minute(silence['until'])}"
    return str(alert["stage"])


async def show_one(settings: Settings, key: str, as_json: bool, out: Console) -> int:
    """``show``: all that is known of one alert."""
    async with ledger_desk(settings) as at:
        found = await whole(at.pool, await _named(at.pool, key), at.now)
    if as_json:
        print_json(out, found)
        return 0
    alert = found["alert"]
    print_line(out, escaped(alert["summary"]), SEVERITIES.get(alert["severity"], "") or "bold")
    print_line(out, f"  {alert['id']}  {escaped(alert['dedup_key'])}", "dim")
    for line in _standing(alert):
        print_line(out, f"  {line}")
    _print_episodes(out, found["episodes"])
    if found["words"]:
        print_line(out, "words", "bold")
        for word in found["words"]:
            note = f": {escaped(word['note'])}" if word["note"] else ""
            via = "" if f"({word['via']})" in word["by"] else f" ({word['via']})"
            said = f"{word['kind']} by {escaped(word['by'])}{via}, episode {word['episode']}{note}"
            print_line(out, f"  {day_minute(word['at'])}  {said}")
    print_line(out, "messages", "bold")
    if not found["deliveries"]:
        print_line(out, "  none: it was only shown", "dim")
    for sent in found["deliveries"]:
        style = STATES.get(sent["state"], "dim")
        print_line(out, f"  {day_minute(sent['owed_at'])}  {_delivery(sent)}", style)
    return 0


def _standing(alert: Mapping[str, Any]) -> list[str]:
    where = f"{alert['scope_type']} {escaped(alert['scope_id'])}"
    team = f", team {escaped(alert['team_id'])}" if alert["team_id"] not in ("", alert["scope_id"]) else ""
    history = ", history: nobody was told" if alert["historic"] else ""
    ended = f", ended {day_minute(alert['resolved_at'])} UTC" if alert["resolved_at"] else ""
    lines = [
        f"{alert['severity']} {alert['tier']}, {alert['rule'].replace('_', ' ')} of {where}{team}{history}",
        f"{stage_words(alert)}, episode {alert['episode']}, since {day_minute(alert['occurred_at'])} UTC{ended}",
    ]
    word, silence = alert["acknowledged"], alert["silenced"]
    if word and alert["stage"] != "acknowledged":
        lines.append(f"acknowledged by {escaped(word['by'])} at {day_minute(word['at'])}")
    if silence:
        lines.append(
            f"silence {silence['id']} by {escaped(silence['by'])} until {day_minute(silence['until'])}:"
            f" {escaped(silence['reason'])}"
        )
    return lines + [held_words(each) for each in alert["held_back"]]


def held_words(held: Mapping[str, Any]) -> str:
    """What holds messages back, for people."""
    whom = f" for {', '.join(held['receivers'])}" if held["receivers"] else ""
    return f"{'inhibited by' if held['by'] == 'inhibition' else 'quiet hours'} {escaped(held['what'])}{escaped(whom)}"


def _print_episodes(out: Console, episodes: list[dict[str, Any]]) -> None:
    for episode in episodes:
        opened, resolved = episode["opened_at"], episode["resolved_at"]
        lasted = f", {_minutes(opened, resolved)}" if resolved else ", open"
        print_line(out, f"episode {episode['episode']} from {day_minute(opened)}{lasted}", "bold")
        for said in episode["statements"]:
            style = SEVERITIES.get(said["severity"], "")
            print_line(out, f"  {day_minute(said['at'])}  {said['status']} {said['severity']}", style)


def _minutes(start: str, end: str) -> str:
    minutes = (parse_instant(end) - parse_instant(start)) // SECOND // 60
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _delivery(sent: Mapping[str, Any]) -> str:
    tries = f", {sent['attempts']} tries" if sent["attempts"] > 1 else ""
    came = f"sent at {sent['sent_at'][11:19]}" if sent["sent_at"] else str(sent["state"]).replace("_", " ")
    detail = sent["receipt"] if sent["state"] == "sent" else sent["last_error"]
    told = f" ({escaped(detail)[:160]})" if detail else ""
    return f"{escaped(sent['receiver'])}: {sent['action']}, {sent['reason']}: {came}{tries}{told}"


async def acknowledge(
    settings: Settings, key: str, note: str, by: str, withdrawn: bool, as_json: bool, out: Console
) -> int:
    """``ack``: take an alert in hand, or give it back."""
    async with ledger_desk(settings) as at:
        row = await _named(at.pool, key)
        found = await say(at.pool, row, by, "cli", at.now, note=note, withdrawn=withdrawn)
    if as_json:
        print_json(out, found)
        return 0
    done = "nobody has it in hand any more" if withdrawn else f"episode {found['episode']} is in the hands of {by}"
    print_line(out, f"{escaped(found['summary'])}: {done}")
    return 0


async def _named(pool: asyncpg.Pool, text: str) -> asyncpg.Record:
    row = await alert_records.find_alert(pool, text)
    if row is None:
        likes = await alert_records.keys_like(pool, text) if text else []
        if len(likes) > 1:
            listed = ", ".join(likes[:3]) + (", …" if len(likes) > 3 else "")
            raise LifeError(f"{text[:80]!r} may be {listed}: write more of it")
        row = await alert_records.find_alert(pool, likes[0]) if likes else None
    if row is None:
        raise LifeError(f"there is no alert {text[:80]!r}; see `sluice alerts list --status all`")
    return row
