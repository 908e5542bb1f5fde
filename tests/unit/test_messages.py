"""What people read: the cause first, within each channel's limits, and nothing in it that the channel would obey."""

import json

import pytest

from schemas.alerts import Alert, Contributor, Driver, Drivers
from streams.sinks import mail, slack, wording
from streams.sinks.pagerduty import PagerDutyReceiver
from streams.standins import slack as slack_standin

DASHBOARD = "https://sluice.example.test"


def spike(**changes) -> Alert:
    fields = {
        "alert_id": "a" * 32,
        "dedup_key": "v1:spend_spike:team:search:2026-11-21T14:00:00Z",
        "episode": 1,
        "status": "opened",
        "severity": "critical",
        "tier": "page",
        "rule": "spend_spike",
        "scope_type": "team",
        "scope_id": "search",
        "team_id": "search",
        "summary": "Team search spent $84.20 by 14:32 UTC, 3.1× the expected $27.10",
        "occurred_at": "2026-11-21T14:32:00Z",
        "stated_at": "2026-11-21T14:32:01Z",
        "observed": "84.2",
        "expected": "27.1",
        "threshold": "150 %",
        "top_contributors": [Contributor("gpt-4o", "60"), Contributor("claude-sonnet-4", "20.5")],
        "runbook": "https://runbooks.example.test/spike",
    }
    return Alert(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        pytest.param({}, "Team search spent", id="an opened alert says the cause"),
        pytest.param({"status": "updated"}, "Update: Team search", id="an update says that it is one"),
        pytest.param({"status": "resolved"}, "Resolved: Team search", id="a resolution says that it is one"),
        pytest.param({"summary": ""}, "Spend spike: team search", id="an empty summary is made up for"),
        pytest.param({"summary": "a\r\nBcc: b\u202e\x00c"}, "a Bcc: b c", id="control characters are gone"),
    ],
)
def test_the_title(changes, first):
    assert wording.title(spike(**changes)).startswith(first)


def test_the_facts_come_in_the_order_of_reading():
    order = [name for name, _ in wording.facts(spike(period_start="p", period_end="q", action="asked nobody"))]
    assert order == ["Where", "Observed", "Expected", "Threshold", "Since", "Period", "Drivers", "Done", "Next"]


def test_an_excess_says_why_and_by_whom_the_largest_part_first():
    parts = {"volume": "1.5", "model_mix": "-0.25", "tokens_per_request": "0", "cache": "0", "price": "30"}
    by = [Driver("team", "search", "31"), Driver("key", "k1", "0.5")]
    said = dict(wording.facts(spike(drivers=Drivers(**parts, by=by))))
    assert said["Why"] == "dearer tokens $30.00, more requests $1.50, dearer models -$0.25"
    assert said["By"] == "team search $31.00, key k1 $0.50"


def test_a_resolution_asks_for_nothing():
    assert "Next" not in dict(wording.facts(spike(status="resolved")))


@pytest.mark.parametrize("rule", sorted(wording.RULE_WORDS))
def test_every_rule_has_words_and_a_next_step(rule):
    assert dict(wording.facts(spike(rule=rule)))["Next"]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="an ordinary alert"),
        pytest.param({"summary": "&" * 5_000, "scope_id": "<" * 5_000, "action": ">" * 5_000}, id="all escapes"),
        pytest.param({"summary": "x" * 151}, id="a summary just over the header"),
        pytest.param({"top_contributors": [Contributor("&" * 2_000, "1")] * 9}, id="many long drivers"),
        pytest.param({"runbook": "https://a.test/" + "x" * 900}, id="a long runbook link"),
    ],
)
def test_a_slack_message_fits_and_cuts_no_escape(changes):
    text, blocks = slack.message(spike(**changes), DASHBOARD)
    body = json.dumps({"text": text, "blocks": blocks})
    assert slack_standin.check(body.encode()) is None
    for shown in [text, *_mrkdwn_texts(blocks)]:
        rest = shown.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
        assert "&" not in rest


def test_slack_makes_no_links_and_mentions_of_what_others_wrote():
    blocks = slack.message(spike(scope_id="<!channel> https://evil.test", runbook="javascript:alert(1)"))[1]
    assert all(
        text["verbatim"] and "<!channel>" not in text["text"]
        for block in blocks
        if block["type"] == "section"
        for text in [*block.get("fields", []), *([block["text"]] if "text" in block else [])]
    )
    assert "javascript" not in json.dumps(blocks)


def _mrkdwn_texts(blocks):
    for block in blocks:
        for text in [block.get("text"), *block.get("fields", [])]:
            if text and text["type"] == "mrkdwn":
                yield text["text"]


@pytest.mark.parametrize(
    ("runbook", "linked"),
    [
        pytest.param("https://runbooks.example.test/spike", True, id="a web address"),
        pytest.param("javascript:alert(1)", False, id="a script"),
        pytest.param("docs/runbook.md#spike", False, id="a path"),
        pytest.param("https://a.test/|x>", False, id="an address that would end the link"),
    ],
)
def test_a_runbook_is_linked_where_it_is_a_web_address(runbook, linked):
    receiver = PagerDutyReceiver("k" * 32, dashboard_url=DASHBOARD)
    pagerduty_links = [link["text"] for link in receiver._links(spike(runbook=runbook))]
    assert ("Runbook" in pagerduty_links) == linked
    assert ("|Runbook>" in json.dumps(slack.message(spike(runbook=runbook))[1])) == linked


HOSTILE = "a\r\nBcc: everyone@example.test\r\n\r\n<script>alert(1)</script>"


def test_a_mail_has_the_headers_that_we_set_and_no_others():
    composed = mail.compose(spike(summary=HOSTILE, scope_id=HOSTILE), "s@x.test", ["a@x.test"], DASHBOARD)
    assert set(composed.keys()) == {
        "Subject",
        "From",
        "To",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
    }
    html = composed.get_body(("html",)).get_content()
    assert "<script>" not in html
    assert b"\nBcc:" not in composed.as_bytes()


@pytest.mark.parametrize(
    ("owner", "recipients"),
    [
        pytest.param("lead@example.test", ("lead@example.test",), id="an address"),
        pytest.param("Lead <lead@example.test>", ("lead@example.test",), id="an address with a name"),
        pytest.param("search team", ("all@x.test",), id="a name"),
        pytest.param("", ("all@x.test",), id="nobody"),
        pytest.param("a@b@c", ("all@x.test",), id="two signs"),
        pytest.param("a@[", ("all@x.test",), id="half a literal"),
        pytest.param("lead@example.test\r\nBcc: e@e.test", ("all@x.test",), id="a header after it"),
        pytest.param("chef@büro.test", ("all@x.test",), id="beyond ASCII"),
    ],
)
def test_a_mail_goes_to(owner, recipients):
    receiver = mail.MailReceiver("127.0.0.1", 25, sender="s@x.test", recipients=["all@x.test"])
    assert receiver._to(spike(owner=owner)) == recipients


def test_a_mail_sent_twice_has_the_same_id_and_each_update_its_own():
    def message_id(**changes):
        return mail.compose(spike(**changes), "s@x.test", ["a@x.test"])["Message-ID"]

    assert message_id() == message_id()
    updates = {message_id(status="updated", alert_id=name) for name in ("b", "c")}
    assert len(updates | {message_id(), message_id(episode=2)}) == 4
