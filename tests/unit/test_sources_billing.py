"""Billing webhooks and FOCUS rows: whose signature is believed, which lines become records, and ids."""

import csv
import json
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from streams.sources.billing import signed, webhook_records
from streams.sources.focus import FocusError, focus_row
from streams.sources.ingest import Unreadable
from streams.sources.intake import problems_of

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "focus" / "focus_sample.csv"
LINE = {
    "billing_account_id": "acc-1",
    "charge_period_start": "2026-11-01T00:00:00Z",
    "charge_period_end": "2026-12-01T00:00:00Z",
    "billed_cost": 12.30,
    "billing_currency": "USD",
    "service_provider_name": "Acme Cloud",
    "team_id": "search",
}
ROW = {
    "BillingAccountId": "acc-1",
    "BillingCurrency": "USD",
    "BilledCost": "0.10",
    "ChargePeriodStart": "2026-11-01T00:00:00Z",
    "ChargePeriodEnd": "2026-11-02T00:00:00Z",
}


def headers_for(body, *, at=None, webhook_id="msg_1", secret=SECRET):
    seconds = int(time.time()) if at is None else at
    signature = Webhook(secret).sign(webhook_id, datetime.fromtimestamp(seconds, UTC), body.decode())
    return {"webhook-id": webhook_id, "webhook-timestamp": str(seconds), "webhook-signature": signature}


def body_of(data, **extra):
    content = {"type": "billing.recorded", "timestamp": "2026-11-21T12:00:00Z", "data": data} | extra
    return json.dumps(content).encode()


def records(data, webhook_id="msg_1", **extra):
    headers = {"webhook-id": webhook_id, "webhook-timestamp": "1795000000"}
    return webhook_records(headers, body_of(data, **extra), 100)


def test_our_signature_is_believed():
    body = body_of(LINE)
    assert signed(SECRET, headers_for(body), body)


def test_one_good_signature_among_others_is_enough():
    body = body_of(LINE)
    headers = headers_for(body)
    headers["webhook-signature"] = "v1a,AAAA v1,AAAA " + headers["webhook-signature"]
    assert signed(SECRET, headers, body)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"webhook-signature": "v1,AAAA"}, id="another signature"),
        pytest.param({"webhook-signature": "v1,%%%not base64"}, id="a signature that is not base64"),
        pytest.param({"webhook-signature": "v1"}, id="a signature without a comma"),
        pytest.param({"webhook-signature": "v1,a,b"}, id="a signature with two commas"),
        pytest.param({"webhook-signature": "v1,é"}, id="a signature that is not ASCII"),
        pytest.param({"webhook-signature": ""}, id="no signature"),
        pytest.param({"webhook-id": "msg_2"}, id="another id"),
        pytest.param({"webhook-timestamp": "soon"}, id="a timestamp that is no number"),
        pytest.param({"webhook-timestamp": "1e400"}, id="an endless timestamp"),
    ],
)
def test_whatever_else_comes_is_refused_without_an_error(change):
    body = body_of(LINE)
    assert not signed(SECRET, headers_for(body) | change, body)


@pytest.mark.parametrize("minutes", [-6, 6], ids=["six minutes old", "six minutes ahead"])
def test_a_signature_is_good_for_five_minutes(minutes):
    body = body_of(LINE)
    assert not signed(SECRET, headers_for(body, at=int(time.time()) + minutes * 60), body)


def test_a_changed_body_and_one_that_is_no_text_are_refused():
    body = body_of(LINE)
    assert not signed(SECRET, headers_for(body), body + b" ")
    assert not signed(SECRET, headers_for(body), b"\xff\xfe")


def test_a_line_becomes_a_record_named_by_webhook_and_place():
    first, second = records([LINE, LINE | {"billed_cost": "-1"}])
    headers = dict(first.headers)
    assert (first.topic, first.key) == ("usage.billing.v1", b"acc-1")
    assert (headers["ce_id"], headers["ce_source"]) == (b"msg_1:0", b"//billing/Acme%20Cloud")
    assert headers["ce_time"] == b"2026-11-21T12:00:00Z"
    assert dict(second.headers)["ce_id"] == b"msg_1:1"
    assert json.loads(second.value)["billed_cost"] == "-1"


def test_a_retry_names_its_lines_as_the_first_time():
    assert records([LINE]) == records([LINE])


def test_an_amount_never_passes_through_a_float():
    body = body_of(LINE).replace(b"12.3", b"12345678901234.123456789")
    (record,) = webhook_records({"webhook-id": "m"}, body, 10)
    assert json.loads(record.value)["billed_cost"] == "12345678901234.123456789"


def test_a_line_may_come_in_focus_columns():
    (record,) = records(ROW | {"ProviderName": "AWS", "BilledCost": 0.1, "Tags": {"team": "ads"}})
    value = json.loads(record.value)
    assert (value["service_provider_name"], value["billed_cost"], value["team_id"]) == ("AWS", "0.1", "ads")


def test_without_a_timestamp_in_the_body_the_header_s_counts():
    (record,) = records(LINE, timestamp="")
    assert dict(record.headers)["ce_time"] == b"2026-11-18T11:06:40Z"


@pytest.mark.parametrize(
    ("data", "places"),
    [
        pytest.param([LINE, {}, LINE | {"billed_cost": "many"}], [1, 2], id="lines without an amount"),
        pytest.param([LINE | {"billing_currency": ""}], [0], id="no currency"),
        pytest.param([LINE | {"charge_period_end": "soon"}], [0], id="a period that does not end"),
        pytest.param(["line", LINE], [0], id="a line that is no object"),
        pytest.param(None, [0], id="no data"),
        pytest.param(ROW, [0], id="a FOCUS row without a provider"),
    ],
)
def test_one_bad_line_and_none_is_published(data, places):
    with pytest.raises(Unreadable) as refused:
        records(data)
    assert [problem.place for problem in refused.value.problems] == places


@pytest.mark.parametrize(
    ("columns", "field", "value"),
    [
        pytest.param({"ProviderName": "AWS"}, "service_provider_name", "AWS", id="1.0 to 1.2: ProviderName"),
        pytest.param({"ServiceProviderName": "AWS"}, "service_provider_name", "AWS", id="1.3: ServiceProviderName"),
        pytest.param(
            {"ServiceProviderName": "new", "ProviderName": "old"},
            "service_provider_name",
            "new",
            id="both: the newer name",
        ),
        pytest.param({"HostProviderName": "GCP"}, "host_provider_name", "GCP", id="1.3: HostProviderName"),
        pytest.param({"InvoiceDetailId": "7"}, "invoice_detail_id", "7", id="1.4: InvoiceDetailId"),
        pytest.param({"ListCost": "NULL"}, "list_cost", None, id="NULL is missing"),
        pytest.param({"ChargeClass": "NULL"}, "charge_class", "", id="NULL text is missing"),
        pytest.param({"EffectiveCost": "1E-7"}, "effective_cost", Decimal("1E-7"), id="a small exponent"),
        pytest.param(
            {"BillingPeriodStart": "2026-11-01 00:00:00"},
            "billing_period_start",
            "2026-11-01T00:00:00Z",
            id="1.0: an instant without its zone is UTC",
        ),
        pytest.param({"Tags": '{"user:Team": "ads"}'}, "team_id", "ads", id="a tag names the team"),
        pytest.param({"Tags": '{"env": "prod"}'}, "environment", "prod", id="a tag names the environment"),
        pytest.param({"Tags": '{"n": 1}'}, "tags", {"n": "1"}, id="a tag that is a number"),
        pytest.param({"x_Custom": "1"}, "origin", "focus", id="columns of one's own are left out"),
    ],
)
def test_focus_columns_of_every_version_are_known(columns, field, value):
    assert (
        getattr(
            focus_row({"ProviderName": "any"} | ROW | columns if field != "service_provider_name" else ROW | columns),
            field,
        )
        == value
    )


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        pytest.param({"BilledCost": "NULL"}, "billed_cost", id="no amount"),
        pytest.param({"BilledCost": "1,000.00"}, "BilledCost is no number", id="thousand separators"),
        pytest.param({"BilledCost": "Infinity"}, "BilledCost is not finite", id="an endless amount"),
        pytest.param({"ChargePeriodStart": "November"}, "ChargePeriodStart is no instant", id="no instant"),
        pytest.param({"ChargeCategory": "Gift"}, "charge_category", id="an unknown category"),
        pytest.param({"Tags": "team=ads"}, "Tags is no JSON", id="tags that are no JSON"),
        pytest.param({"Tags": "[1]"}, "Tags is no JSON object", id="tags that are a list"),
    ],
)
def test_a_row_that_is_no_charge_says_which_column(columns, said):
    with pytest.raises(FocusError, match=said):
        focus_row(ROW | {"ProviderName": "AWS"} | columns)


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the FOCUS sample is not at hand")
def test_every_row_of_a_real_focus_bill_is_read_to_the_last_digit():
    with SAMPLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    bills = [focus_row(row) for row in rows]
    assert len(bills) == 1_000
    assert sum(bill.billed_cost for bill in bills) == sum(Decimal(row["BilledCost"]) for row in rows)
    assert {bill.service_provider_name for bill in bills} == {"AWS", "Microsoft", "Oracle"}
    assert [problem for bill in bills for problem in problems_of(bill, 0)] == []
