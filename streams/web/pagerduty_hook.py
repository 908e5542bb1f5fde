"""``POST /v1/webhooks/pagerduty``: who takes an incident in hand in PagerDuty has it in hand here."""

import logging
from typing import Any

from fastapi import APIRouter, HTTPException, Request

from streams.core.alert_life import IncidentWord, said_by_pagerduty
from streams.sinks.acknowledgements import add_word
from streams.sinks.alert_records import episodes_of
from streams.sinks.owing import alerts_of_thread, wake
from streams.sources.access import read_body
from streams.sources.pagerduty_hook import HEADER, is_signed, read_webhook
from streams.web.reading import Parts

log = logging.getLogger(__name__)
router = APIRouter(tags=["alerts"])
#: An incident with its assignees and teams has a few thousand.
BODY_BYTES_MAX = 262_144


@router.post("/v1/webhooks/pagerduty", status_code=202, summary="Take a signed webhook (V3) of PagerDuty")
async def take(request: Request, parts: Parts) -> dict[str, Any]:
    """`incident.acknowledged` and a person's `incident.resolved` take the incident's alerts in hand; `unacknowledged`
    and `reopened` give them back. Everything else is taken and does nothing, and a repeat changes nothing."""
    secret = parts.settings.pagerduty_webhook_secret
    if secret is None:
        raise HTTPException(
            503,
            "PagerDuty's webhooks are off: set pagerduty_webhook_secret "
            "(SLUICE_PAGERDUTY_WEBHOOK_SECRET or SLUICE_PAGERDUTY_WEBHOOK_SECRET_FILE)",
        )
    body = await read_body(request, BODY_BYTES_MAX)
    if not is_signed(secret.get_secret_value(), request.headers.get(HEADER, ""), body):
        raise HTTPException(401, f"no signature in {HEADER} is of this body and our secret")
    try:
        heard = read_webhook(body)
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    if heard is None:
        return {"taken": 0, "alerts": []}
    async with parts.pool.acquire() as connection, connection.transaction():
        # Without groups an incident's key is the alert's own.
        named = await alerts_of_thread(connection, heard.incident_key) or (heard.incident_key,)
        found = said_by_pagerduty(IncidentWord(*heard), await episodes_of(connection, named))
        for said in found:
            await add_word(connection, said.acknowledgement, withdrawn=said.withdrawn, note=said.note)
        told = [said.acknowledgement.dedup_key for said in found]
        await wake(connection, told)
    log.info("PagerDuty: %s by %s concerns %d alerts", heard.event_type, heard.by, len(told))
    return {"taken": len(found), "alerts": told}
