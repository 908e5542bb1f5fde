"""Billing webhooks, signed as Standard Webhooks: ``{type, timestamp, data}``, data a bill line or a list.

Lines are named by the webhook's id and their place, which a retry repeats, so no dollar is counted twice.
"""

import binascii
import logging
from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse
from standardwebhooks import Webhook

from schemas.events import BillingRecord
from schemas.instants import SECOND, InstantError, format_instant, parse_instant
from streams.settings import Settings
from streams.sources.access import read_body
from streams.sources.focus import FocusError, focus_row, is_focus
from streams.sources.ingest import Publisher, Unreadable, publish, refusal
from streams.sources.intake import IDENTITY_LENGTH_MAX, Problem, billing_record, problems_of
from streams.sources.publisher import Record

log = logging.getLogger(__name__)

WEBHOOK_ID_LENGTH_MAX = 256


class WebhookBody(msgspec.Struct):
    """What a Standard Webhook carries. The type is the sender's; the data must be bill lines."""

    #: Kept as bytes: a number must become a decimal without passing through a float.
    data: msgspec.Raw
    type: str = ""
    timestamp: str = ""


_decode_body = msgspec.json.Decoder(WebhookBody).decode
_decode_lines = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_bill = msgspec.json.Decoder(BillingRecord).decode


def billing_router(publisher: Publisher, settings: Settings) -> APIRouter:
    """``POST /v1/webhooks/billing``: 202, or 400 with reasons, 401, 413, 503."""
    router = APIRouter(tags=["ingest"])

    @router.post("/v1/webhooks/billing", status_code=202, summary="Take a signed billing webhook")
    async def take(request: Request) -> JSONResponse:
        if settings.billing_webhook_secret is None:
            raise HTTPException(
                503,
                "billing webhooks are off: set billing_webhook_secret "
                "(SLUICE_BILLING_WEBHOOK_SECRET=whsec_… or SLUICE_BILLING_WEBHOOK_SECRET_FILE)",
            )
        body = await read_body(request, settings.ingest_body_bytes_max)
        secret = settings.billing_webhook_secret.get_secret_value()
        if not signed(secret, request.headers, body):
            raise HTTPException(
                401,
                "webhook-id, webhook-timestamp and webhook-signature do not match the body and our secret",
            )
        try:
            records = webhook_records(request.headers, body, settings.ingest_batch_max)
        except Unreadable as error:
            return refusal(error.problems)
        return await publish(publisher, records)

    return router


def signed(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether one of the signatures is ours and at most five minutes old."""
    try:
        webhook = Webhook(secret)
    except (ValueError, binascii.Error) as error:
        raise HTTPException(503, "billing_webhook_secret is not base64 after whsec_: set it anew") from error
    try:
        webhook.verify(body, dict(headers), json_parse=False)
    except Exception as error:
        # The package raises ValueError, binascii.Error, UnicodeError and others for what is merely malformed.
        log.info("a billing webhook was refused: %r", error)
        return False
    return True


def webhook_records(headers: Mapping[str, str], body: bytes, lines_max: int) -> list[Record]:
    """The bill lines of a webhook whose signature was checked.

    Raises:
        Unreadable: with every problem and the place of its line.
        HTTPException: 413 for too many lines.
    """
    webhook_id = headers["webhook-id"]
    if len(webhook_id) > WEBHOOK_ID_LENGTH_MAX:
        raise Unreadable([Problem(0, f"webhook-id is longer than {WEBHOOK_ID_LENGTH_MAX} characters")])
    try:
        content = _decode_body(body)
        time = content.timestamp or format_instant(int(float(headers["webhook-timestamp"])) * SECOND)
        parse_instant(time)
        data = bytes(content.data)
        lines = [bytes(line) for line in _decode_lines(data)] if data.lstrip()[:1] == b"[" else [data]
    except (msgspec.DecodeError, UnicodeDecodeError, InstantError, OverflowError) as error:
        raise Unreadable([Problem(0, f"expected {{type, timestamp, data}}: {error}")]) from error
    if len(lines) > lines_max:
        raise HTTPException(413, f"{len(lines)} bill lines in one webhook; send at most {lines_max}")
    records: list[Record] = []
    problems: list[Problem] = []
    for index, line in enumerate(lines):
        try:
            bill = bill_line(line)
        except (FocusError, msgspec.DecodeError) as error:
            problems.append(Problem(index, str(error)))
            continue
        problems += [Problem(index, reason) for reason in problems_of(bill, 0)]
        source = f"//billing/{quote(bill.service_provider_name, safe='')}"
        if len(webhook_id) + len(source) > IDENTITY_LENGTH_MAX - 8:
            problems.append(Problem(index, "webhook-id and service_provider_name are too long together"))
        records.append(billing_record(bill, id=f"{webhook_id}:{index}", source=source, time=time))
    if problems:
        raise Unreadable(problems)
    return records


def bill_line(line: bytes) -> BillingRecord:
    """A bill line from a JSON object in our names (snake_case) or in FOCUS columns.

    Raises:
        FocusError: a FOCUS row that is none.
        msgspec.DecodeError: not a JSON object, or a field is missing or of the wrong type.
    """
    members = _decode_members(line)
    if not is_focus(members):
        return _decode_bill(line)
    return focus_row({name: _text(bytes(member)) for name, member in members.items()})


def _text(member: bytes) -> str:
    """A JSON value as the text that a CSV would hold: strings without quotes, all else as it is written."""
    return msgspec.json.decode(member, type=str) if member[:1] == b'"' else member.decode()
