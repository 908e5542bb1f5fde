"""Training runs: what they announced, and their team lead's word on it, by API key or by a signed link.

A link opens a page that asks; only its form decides, so a mail scanner that follows every link approves nothing.
"""

import html
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import parse_qs

import asyncpg
import msgspec
from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import Field

from schemas.budgets import Run
from schemas.instants import DAY, format_instant, to_micros
from schemas.money import display_usd, format_usd, parse_nanos
from streams.core import approvals
from streams.core.approvals import Bounds, Link, LinkError, RunError, Verdict, to_second
from streams.core.defining import RequestError, Wrong, name, run_of, until
from streams.settings import Settings
from streams.sinks.api_keys import KeyInfo
from streams.sources.access import read_body, require_scope
from streams.web import queries
from streams.web.budget_changes import reason_of
from streams.web.reading import Reading
from streams.web.writing import Amount, Body, BoundedRoute, Reason, Store, publish

router = APIRouter(route_class=BoundedRoute, tags=["runs"])
RunId = Annotated[str, Path(max_length=128)]
LINK_LONGEST = 14 * DAY
FORM_BYTES_MAX = 8_192
#: Besides what every answer has: this page may send its own form.
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class RunBody(Body):
    """What a run announces."""

    id: str = Field(max_length=128, description="`run` of the events that the job sends.")
    team: str = Field(max_length=512)
    estimate_usd: Amount
    estimate_hours: int = 0
    auto_shutdown: bool = Field(False, description="It may be stopped when it passes its estimate by a factor.")
    stop_at_percent: int = Field(150, description="Of the estimate: where that is.")
    owner: str = Field("", max_length=256)
    reason: Reason = ""


class DecisionBody(Body):
    """Why, and what was decided on."""

    reason: Reason = ""
    estimate_usd: Amount = Field("", description="The estimate that was decided on; another one is refused.")


class EndBody(Body):
    """How it ended."""

    outcome: str = Field("", max_length=1_000)


class LinkBody(Body):
    """Whom a link is for, and until when."""

    to: str = Field(description="Whose word it will be: a name or an address.", max_length=256)
    until: str = Field("3d", description="An instant, or a span from now; 14 days at most.", max_length=64)


def bounds_from(settings: Settings) -> Bounds:
    """From which estimates on a run needs what."""
    return Bounds(parse_nanos(settings.run_record_usd), parse_nanos(settings.run_approval_usd))


async def _announcer(request: Request, store: Store, team: str) -> KeyInfo:
    """A key of scope ``budgets:write``, or the job's own of scope ``ingest`` if it is bound to the run's team."""
    keys = store.keys
    info = await require_scope(request, keys, "budgets:write", "ingest")
    if info.team_id != team and (info.team_id or "budgets:write" not in info.scopes):
        owner = f"is bound to team {info.team_id!r}" if info.team_id else "is bound to no team and lacks budgets:write"
        raise HTTPException(403, f"the API key {info.name!r} {owner}: run of team {team!r} is not its business")
    return info


async def _lead(request: Request, store: Store, team: str) -> KeyInfo:
    info = await require_scope(request, store.keys, "approve")
    if info.team_id != team:
        raise HTTPException(
            403, {
                "detail": f"the API key {info.name!r} does not speak for team {team!r}",
                "action": f"`sluice keys create NAME --scope approve --team {team}` makes one; or use a signed link.",
            }
        )  # fmt: skip
    return info


@router.get("/v1/runs", summary="Training runs that were announced")
async def read_runs(
    store: Store, reader: Reading, state: Annotated[str, Query(description="Only of this state.")] = ""
) -> dict[str, list[dict[str, Any]]]:
    """The newest first. A team's key sees the team's own."""
    known = await store.known.now()
    found = [run for run in known.runs.values() if reader.team in ("", run.team_id) and state in ("", run.state)]
    bounds = bounds_from(store.settings)
    asked = await asked_of(store.pool, [run.id for run in found])
    found.sort(key=lambda run: (-run.announced_at, run.id))
    return {"runs": [shown(run, bounds) | {"commands": asked.get(run.id, [])} for run in found]}


async def asked_of(pool: asyncpg.Pool, run_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """What runs were commanded, the oldest first, and what their executors answered; by run."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in await queries.job_commands(pool, run_ids):
        times = {name: format_instant(to_micros(row[name])) for name in ("issued_at", "expires_at")}
        said = {name: row[name] for name in ("command_id", "action", "revision", "reason", "dry_run")}
        found.setdefault(row["run_id"], []).append(said | times | {"answers": msgspec.json.decode(row["acks"])})
    return found


def shown(run: Run, bounds: Bounds) -> dict[str, Any]:
    """A run for people."""
    return {
        "id": run.id, "team": run.team_id, "state": run.state, "estimate": format_usd(run.estimate_nanos),
        "estimate_hours": run.estimate_hours, "auto_shutdown": run.auto_shutdown,
        "stop_at_percent": run.stop_at_percent, "owner": run.owner,
        "announced_at": format_instant(run.announced_at), "decided_by": run.decided_by,
        "decided_at": format_instant(run.decided_at) if run.decided_at else None, "outcome": run.outcome,
        "standing": approvals.standing(run, bounds),
    }  # fmt: skip


@router.post("/v1/runs", summary="Announce a training run", status_code=201)
async def post_run(request: Request, store: Store, body: RunBody) -> dict[str, Any]:
    """On record at once up to `run_approval_usd`; above it the run waits for its team lead. Announcing again may change
    the estimate; an approval holds for no more than was approved."""
    team = body.team.strip()
    caller = await _announcer(request, store, team)
    known = await store.known.now(fresh=True)
    wanted = run_of(
        body.id, team=team, estimate_usd=body.estimate_usd, hours=body.estimate_hours,
        auto_shutdown=body.auto_shutdown, stop_at_percent=body.stop_at_percent, owner=body.owner or caller.name,
    )  # fmt: skip
    bounds = bounds_from(store.settings)
    run = approvals.announce(wanted, known.runs.get(wanted.key()), bounds, store.clock.now())
    await publish(store, [run], caller.name, body.reason.strip() or "announced")
    return shown(run, bounds)


@router.post("/v1/runs/{run_id:path}/approve", summary="Approve a run, as its team's lead")
async def post_approve(request: Request, store: Store, run_id: RunId, body: DecisionBody) -> dict[str, Any]:
    """Needs a key of scope `approve` that is bound to the run's team."""
    return await _decided(request, store, run_id, "approved", body)


@router.post("/v1/runs/{run_id:path}/refuse", summary="Refuse a run, as its team's lead")
async def post_refuse(request: Request, store: Store, run_id: RunId, body: DecisionBody) -> dict[str, Any]:
    """Needs a key of scope `approve` that is bound to the run's team."""
    return await _decided(request, store, run_id, "refused", body)


@router.post("/v1/runs/{run_id:path}/end", summary="Say that a run is over")
async def post_end(request: Request, store: Store, run_id: RunId, body: EndBody) -> dict[str, Any]:
    """Its record stays."""
    run = _run_named(await store.known.now(fresh=True), run_id)
    caller = await _announcer(request, store, run.team_id)
    over = approvals.end(run, " ".join(body.outcome.split()))
    await publish(store, [over], caller.name, over.outcome or "ended")
    return shown(over, bounds_from(store.settings))


@router.post("/v1/runs/{run_id:path}/link", summary="Make a signed link that decides on a run", status_code=201)
async def post_link(request: Request, store: Store, run_id: RunId, body: LinkBody) -> dict[str, str]:
    """For one run, its present estimate and one person. Needs a key of scope `approve` of the run's team."""
    run = _run_named(await store.known.now(fresh=True), run_id)
    await _lead(request, store, run.team_id)
    return link_to(store.settings, run, body.to, body.until, store.clock.now())


def link_to(settings: Settings, run: Run, to: str, ends: str, now: int) -> dict[str, str]:
    """The link, and until when it holds.

    Raises:
        RequestError: a field is wrong.
        LinkError: no secret is set, or nothing is left to decide.
    """
    if settings.approval_secret is None:
        raise LinkError("approval_secret is not set, so no link can be signed: `openssl rand -hex 32` makes one")
    try:
        approver, stop = name(to), until(ends, now, LINK_LONGEST)
    except ValueError as error:
        raise RequestError([Wrong("to or until", str(error))]) from error
    secret = settings.approval_secret.get_secret_value().encode()
    url = approvals.link_url(secret, settings.public_url, run, approver, stop)
    return {"url": url, "to": approver, "until": format_instant(stop)}


async def _decided(request: Request, store: Store, run_id: str, verdict: Verdict, body: DecisionBody) -> dict[str, Any]:
    run = _run_named(await store.known.now(fresh=True), run_id)
    caller = await _lead(request, store, run.team_id)
    why = reason_of(body.reason)
    if body.estimate_usd and parse_nanos(body.estimate_usd) != run.estimate_nanos:
        raise RunError(f"run {run.id} asks for {display_usd(run.estimate_nanos)} now: look again and decide on that")
    after = approvals.decide(run, verdict, caller.name, store.clock.now(), why)
    await publish(store, [after], caller.name, why)
    return shown(after, bounds_from(store.settings))


def _run_named(known: Any, run_id: str) -> Run:
    found: Run | None = known.runs.get(f"run|{run_id}")
    if found is None:
        raise HTTPException(404, f"no run {run_id[:64]!r} was announced")
    return found


# -- the page behind a link -----------------------------------------------------------------------------------------


@router.get("/v1/approvals/{token}", include_in_schema=False)
async def read_approval(store: Store, token: Annotated[str, Path(max_length=2_048)]) -> Response:
    """Asks. Decides nothing, however often it is opened."""
    try:
        link, run = await _meant(store, token)
    except LinkError as error:
        return _page("This link decides nothing", [str(error)], 410)
    facts = [
        f"Run {run.id} of team {run.team_id} wants to spend up to {display_usd(run.estimate_nanos)}"
        + (f" in about {run.estimate_hours} hours." if run.estimate_hours else "."),
        f"Announced by {run.owner or 'nobody named'} at {to_second(run.announced_at)}.",
        f"Your answer goes on record as {link.approver}'s. The link ends at {to_second(link.expires)}.",
    ]
    return _page("Does this training run have your approval?", facts, 200, asks=True)


@router.post("/v1/approvals/{token}", include_in_schema=False)
async def post_approval(request: Request, store: Store, token: Annotated[str, Path(max_length=2_048)]) -> Response:
    """Decides, once."""
    form = parse_qs((await read_body(request, FORM_BYTES_MAX)).decode("utf-8", "replace"), max_num_fields=10)
    verdict = form.get("verdict", [""])[0]
    if verdict not in ("approved", "refused"):
        return _page("Nothing was decided", ["The form did not say whether it was approved or refused."], 422)
    try:
        link, run = await _meant(store, token)
        why = " ".join(form.get("reason", [""])[0].split())[:1_000] or f"{verdict} by a signed link"
        by = f"{link.approver} (signed link)"
        chosen: Verdict = "approved" if verdict == "approved" else "refused"
        after = approvals.decide(run, chosen, by, store.clock.now(), why)
    except (LinkError, RunError) as error:
        return _page("This link decides nothing", [str(error)], 410)
    await publish(store, [after], by, why)
    return _page(f"Run {run.id} is {verdict}", [f"{approvals.standing(after, bounds_from(store.settings))}."], 200)


async def _meant(store: Store, token: str) -> tuple[Link, Run]:
    secret = store.settings.approval_secret
    if secret is None:
        raise LinkError("this service signs no links now: ask whoever sent it")
    link = approvals.read_link(secret.get_secret_value().encode(), token, store.clock.now())
    known = await store.known.now(fresh=True)
    return link, approvals.still_meant(link, known.runs.get(f"run|{link.run_id}"))


_FORM = """<form method="post" class="decision">
<p><label for="reason">Why (for the record)</label><br><input id="reason" name="reason" maxlength="1000"></p>
<p><button name="verdict" value="approved">Approve</button> <button name="verdict" value="refused">Refuse</button></p>
</form>"""


def _page(title: str, lines: list[str], status: int, *, asks: bool = False) -> HTMLResponse:
    """Whatever others wrote is text in it, never markup."""
    body = "\n".join(f"<p>{html.escape(line)}</p>" for line in lines)
    head = html.escape(title)
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{head}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">'
        '<meta name="color-scheme" content="light dark"><link rel="stylesheet" href="/assets/dashboard.css"></head>'
        f'<body><main class="ask"><h1>{head}</h1>\n{body}\n{_FORM if asks else ""}</main></body></html>'
    )
    return HTMLResponse(page, status, {"Content-Security-Policy": PAGE_POLICY})
