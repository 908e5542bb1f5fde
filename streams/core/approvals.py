"""Training runs that announce what they will cost: what goes on record, who has to say yes, and links that say it.

A link is for one run, one estimate and one person, and ends. It opens a page that asks; only that page's form decides.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Literal, NamedTuple

import msgspec

from schemas.budgets import Run
from schemas.instants import SECOND, format_instant
from schemas.money import NANOS, display_usd

Verdict = Literal["approved", "refused"]
#: Names what is signed, so that a signature under the same secret for something else never fits.
_PURPOSE = b"sluice run approval v1\n"
SECRET_BYTES_MIN = 16


class RunError(ValueError):
    """What was asked for cannot be done with this run; the text says why, and what can."""


class LinkError(ValueError):
    """A link that decides nothing: forged, cut short, too old, or for an estimate that has changed."""


class Bounds(NamedTuple):
    """Above ``record_nanos`` a run needs an announcement; above ``approval_nanos`` its team lead's approval."""

    record_nanos: int = 50 * NANOS
    approval_nanos: int = 200 * NANOS


class Link(msgspec.Struct, frozen=True, array_like=True):
    """What a signed link says: whose word it is, on which run and estimate, and until when (microseconds)."""

    run_id: str
    estimate_nanos: int
    approver: str
    expires: int


def announce(wanted: Run, known: Run | None, bounds: Bounds, now: int) -> Run:
    """The run as it goes on record: ``recorded`` at once, or ``announced`` and waiting where somebody has to approve.

    Announcing again may change the estimate; an approval holds for no more than was approved.

    Raises:
        RunError: the run is another team's, or its story is over.
    """
    if known is not None:
        if known.team_id != wanted.team_id:
            raise RunError(f"run {wanted.id} is team {known.team_id}'s: announce under an id of your own")
        if known.state in ("refused", "ended"):
            raise RunError(f"run {wanted.id} is {known.state}: announce what comes next under a new id")
    placed = msgspec.structs.replace(wanted, state="recorded", announced_at=now, decided_by="", decided_at=0)
    if known is not None and known.state == "approved" and wanted.estimate_nanos <= known.estimate_nanos:
        return msgspec.structs.replace(
            placed, state="approved", decided_by=known.decided_by, decided_at=known.decided_at,
            announced_at=known.announced_at,
        )  # fmt: skip
    if wanted.estimate_nanos > bounds.approval_nanos:
        return msgspec.structs.replace(placed, state="announced")
    return placed


def decide(run: Run, verdict: Verdict, by: str, now: int, why: str = "") -> Run:
    """The run after its team lead's word. A refusal may follow an approval; an approval never follows a refusal.

    Raises:
        RunError: nothing is left to decide.
    """
    if run.state == verdict:
        raise RunError(f"run {run.id} was {verdict} already, by {run.decided_by or 'nobody named'}")
    if run.state == "ended" or (run.state == "refused" and verdict == "approved"):
        raise RunError(f"run {run.id} is {run.state}: it can be {verdict} no more; announce it under a new id")
    return msgspec.structs.replace(
        run, state=verdict, decided_by=by, decided_at=now, outcome=why if verdict == "refused" else run.outcome
    )


def link_url(secret: bytes, public_url: str, run: Run, approver: str, ends: int) -> str:
    """The address under which ``approver`` decides on the run's present estimate, until ``ends``.

    Raises:
        LinkError: the secret is too short, or nothing is left to decide.
    """
    link = Link(run.id, run.estimate_nanos, approver, ends)
    still_meant(link, run)
    return f"{public_url.rstrip('/')}/v1/approvals/{sign(secret, link)}"


def end(run: Run, outcome: str) -> Run:
    """The run once it is over. Who approved it stays on record.

    Raises:
        RunError: it has ended already.
    """
    if run.state == "ended":
        raise RunError(f"run {run.id} has ended already")
    return msgspec.structs.replace(run, state="ended", outcome=outcome)


def standing(run: Run, bounds: Bounds) -> str:
    """One sentence on where the run stands, for those who announced it."""
    estimate, limit = display_usd(run.estimate_nanos), display_usd(bounds.approval_nanos)
    if run.state == "announced":
        return f"{estimate} is above {limit}: it waits for the approval of team {run.team_id}'s lead"
    if run.state == "recorded":
        return f"{estimate} is on record, and needs no approval up to {limit}"
    if run.state == "approved":
        return f"{estimate} was approved by {run.decided_by} at {to_second(run.decided_at)}"
    if run.state == "refused":
        why = f": {run.outcome}" if run.outcome else ""
        return f"{estimate} was refused by {run.decided_by} at {to_second(run.decided_at)}{why}"
    return f"it has ended{f': {run.outcome}' if run.outcome else ''}"


def to_second(instant: int) -> str:
    """An instant as people want to read it."""
    return format_instant(instant - instant % SECOND)


def sign(secret: bytes, link: Link) -> str:
    """The token of a link: what it says and the HMAC-SHA256 over it, for a URL.

    Raises:
        LinkError: the secret is too short to sign with.
    """
    if len(secret) < SECRET_BYTES_MIN:
        raise LinkError(f"approval_secret has {len(secret)} bytes and needs {SECRET_BYTES_MIN}: `openssl rand -hex 32`")
    body = msgspec.json.encode(link)
    return f"{_text(body)}.{_text(_mac(secret, body))}"


def read_link(secret: bytes, token: str, now: int) -> Link:
    """What a token says, if the secret's holder signed it and it has not ended.

    >>> link = Link("ft-7", 250_000_000_000, "lead@example.com", 2_000)
    >>> read_link(b"k" * 16, sign(b"k" * 16, link), 1_000) == link
    True

    Raises:
        LinkError: it was not signed so, or it is over.
    """
    body_text, _, mac_text = token.partition(".")
    try:
        body, mac = _bytes(body_text), _bytes(mac_text)
        if len(secret) < SECRET_BYTES_MIN or not hmac.compare_digest(mac, _mac(secret, body)):
            raise LinkError("this link was not made by this service, or it was cut short: ask for a new one")
        link = msgspec.json.decode(body, type=Link)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        if isinstance(error, LinkError):
            raise
        raise LinkError("this link was cut short or changed on its way: ask for a new one") from error
    if now >= link.expires:
        raise LinkError(f"this link ended at {to_second(link.expires)}: ask for a new one")
    return link


def still_meant(link: Link, run: Run | None) -> Run:
    """The run that a link is about, if nothing has been decided and its estimate is not above the one that was signed.

    Raises:
        LinkError: there is nothing left for this link to decide.
    """
    if run is None or run.id != link.run_id:
        raise LinkError(f"there is no run {link.run_id} any more")
    if run.state not in ("announced", "recorded"):
        raise LinkError(f"run {run.id} is {run.state} already{f', by {run.decided_by}' if run.decided_by else ''}")
    if run.estimate_nanos > link.estimate_nanos:
        raise LinkError(
            f"run {run.id} now asks for {display_usd(run.estimate_nanos)}, and this link is for"
            f" {display_usd(link.estimate_nanos)}: ask for a new one"
        )
    return run


def _mac(secret: bytes, body: bytes) -> bytes:
    return hmac.new(secret, _PURPOSE + body, hashlib.sha256).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
