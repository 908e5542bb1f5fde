"""What people read: the cause first, within each channel's limits, and nothing in it that the channel would obey."""

import json
from typing import get_args

import msgspec
import pytest

from schemas import alerts as schema
from schemas.alerts import Alert, Contributor, Driver, Drivers
from schemas.instants import parse_instant
from streams.core.notifying import Notification
from streams.sinks import mail, mail_html, mail_text, pagerduty, telling, webhook, wording
from streams.sinks.slack_blocks import message
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


def told(*alerts: Alert, action="trigger", reason="opened", **changes) -> Notification:
    alerts = alerts or (spike(),)
    fields = {
        "notification_id": "n" * 32,
        "receiver": "r",
        "thread_key": alerts[0].dedup_key,
        "action": action,
        "reason": reason,
        "alerts": alerts,
        "decided_at": parse_instant("2026-11-21T14:32:01Z"),
    }
    return Notification(**(fields | changes))


OVER = {"status": "resolved", "summary": "Team search spends as usual again"}


@pytest.mark.parametrize(
    ("notification", "heading"),
    [
        pytest.param(told(), "Team search spent $84.20 by 14:32", id="what is new begins with its cause"),
        pytest.param(told(reason="worse"), "Worse: Team search", id="worse"),
        pytest.param(told(reason="better"), "Better: Team search", id="better"),
        pytest.param(told(reason="repeated"), "Still: Team search", id="said again"),
        pytest.param(told(reason="escalated"), "Not acknowledged: Team search", id="nobody has answered"),
        pytest.param(told(spike(status="updated")), "Update: Team search", id="another statement"),
        pytest.param(told(action="acknowledge"), "Acknowledged: Team search", id="in hand"),
        pytest.param(
            told(spike(**OVER), action="resolve", reason="resolved"), "Resolved: Team search spends as", id="over"
        ),
        pytest.param(told(spike(**OVER), reason="left"), "Resolved: Team search spends as", id="one that left"),
        pytest.param(
            told(spike(), spike(), spike(), spike(**OVER)), "3 firing, 1 ended: Team search spent", id="a group"
        ),
        pytest.param(told(spike(), spike(), reason="worse"), "Worse: 2 firing: Team", id="a group that is worse"),
        pytest.param(
            told(spike(**OVER), spike(**OVER), action="resolve"), "Resolved, 2 alerts: Team", id="a group that is over"
        ),
        pytest.param(told(action="resolve"), "No longer told here: Team search", id="it fires, but is told elsewhere"),
        pytest.param(
            told(spike(), spike(**OVER), action="resolve"),
            "No longer told here, 2 alerts: ",
            id="a group told elsewhere",
        ),
        pytest.param(told(spike(**OVER), spike(**OVER), reason="left"), "2 ended: Team search", id="what left a group"),
        pytest.param(told(reason="updated"), "Update: Team search", id="it says something else"),
        pytest.param(told(heading="Week 47"), "Week 47", id="a heading of its own"),
        pytest.param(told(heading="a\r\nBcc: b\u202e\x00c"), "a Bcc: b c", id="control characters are gone"),
        pytest.param(told(spike(summary="a\r\nBcc: b\u202e\x00c")), "a Bcc: b c", id="of a summary too"),
        pytest.param(told(spike(summary="")), "Spend spike: team search", id="an empty summary is made up for"),
    ],
)
def test_the_heading(notification, heading):
    assert telling.heading(notification).startswith(heading)


@pytest.mark.parametrize(
    ("notification", "standing"),
    [
        pytest.param(told(spike(severity="warning"), spike(**OVER)), "warning", id="the worst that fires"),
        pytest.param(told(spike(**OVER), reason="left"), "ended", id="nothing of it fires"),
        pytest.param(told(spike(**OVER), action="resolve"), "ended", id="over"),
        pytest.param(told(action="resolve"), "closed", id="it fires, but is told elsewhere"),
    ],
)
def test_how_an_incident_stands(notification, standing):
    assert telling.standing(notification) == standing


def test_a_group_of_one_alert_does_not_repeat_its_key():
    found = told(group={"alert": spike().dedup_key, "team": ""})
    assert (telling.about(found), "v1:" in json.dumps(message(found)[1])) == ("", False)


def test_the_facts_come_in_the_order_of_reading():
    drivers = Drivers(
        volume="1", model_mix="0", tokens_per_request="0", cache="0", price="0", by=[Driver("a", "b", "1")]
    )
    found = wording.facts(spike(period_start="p", period_end="q", action="asked nobody", drivers=drivers))
    order = ["Where", "How much", "Since", "Period", "Why", "By", "Done", "Next"]
    assert [name for name, _ in found] == order


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({}, "$84.20, 3.1× the expected $27.10, bar 150 %", id="an excess"),
        pytest.param({"threshold": "40.65"}, "$84.20, 3.1× the expected $27.10, bar $40.65", id="a bar in dollars"),
        pytest.param({"expected": ""}, "$84.20, bar 150 %", id="nothing was expected"),
        pytest.param({"expected": "0"}, "$84.20, expected $0.00, bar 150 %", id="nought was expected"),
        pytest.param({"expected": "84"}, "$84.20, expected $84.00, bar 150 %", id="about as expected"),
        pytest.param({"observed": "9000"}, "$9,000.00, 332× the expected $27.10, bar 150 %", id="far above"),
        pytest.param(
            {"observed": "52000", "expected": "4000", "threshold": "50000", "unit": "tokens"},
            "52,000 tokens, 13.0× the expected 4,000 tokens, bar 50,000 tokens",
            id="tokens",
        ),
        pytest.param(
            {"rule": "budget_threshold", "observed": "50.1", "expected": "50", "threshold": "100 %"},
            "$50.10 of $50.00 (100 %)",
            id="a budget",
        ),
        pytest.param({"observed": "", "expected": "", "threshold": ""}, None, id="no figures at all"),
        pytest.param(
            {"observed": "NaN", "expected": "x"}, "NaN USD, expected x USD, bar 150 %", id="figures that are none"
        ),
    ],
)
def test_how_much(changes, says):
    assert dict(wording.facts(spike(**changes))).get("How much") == says


@pytest.mark.parametrize(
    ("changes", "label", "says"),
    [
        pytest.param({}, "Since", "2026-11-21 14:32 UTC", id="it fires"),
        pytest.param(
            {"status": "resolved", "stated_at": "2026-11-21T16:02:00Z"},
            "Since",
            "2026-11-21 14:32 UTC, ended 2026-11-21 16:02 UTC",
            id="it has ended",
        ),
        pytest.param({"status": "resolved"}, "Ended", "2026-11-21 14:32 UTC", id="only its end is known"),
        pytest.param({"occurred_at": "soon"}, "Since", "soon", id="no instant"),
    ],
)
def test_since_when(changes, label, says):
    assert dict(wording.facts(spike(**changes)))[label] == says


def test_where_names_what_more_is_known_and_nothing_twice():
    found = spike(
        feature="chat", labels={"environment": "production", "cost_centre": "cc-7", "team": "search", "model": ""}
    )
    assert wording.where(found) == "team search, feature chat, cost centre cc-7, environment production"


def test_an_excess_says_why_and_by_whom_the_largest_part_first():
    parts = {"volume": "1.5", "model_mix": "-0.25", "tokens_per_request": "0", "cache": "0", "price": "30"}
    by = [Driver("team", "search", "31"), Driver("key", "k1", "0.5")]
    said = dict(wording.facts(spike(drivers=Drivers(**parts, by=by))))
    assert said["Why"] == "dearer tokens $30.00, more requests $1.50, dearer models -$0.25"
    assert said["By"] == "team search $31.00, key k1 $0.50"


def test_of_many_contributors_the_first_are_named_and_the_rest_counted():
    found = spike(top_contributors=[Contributor(f"c{n}", "1") for n in range(9)])
    assert dict(wording.facts(found))["Drivers"].endswith("c4 $1.00 and 4 more")


def test_a_resolution_asks_for_nothing():
    assert {"Next", "Done"}.isdisjoint(dict(wording.facts(spike(status="resolved"))))


def test_an_alert_that_only_tells_says_so():
    assert dict(wording.facts(spike()))["Done"] == wording.ONLY_TOLD


@pytest.mark.parametrize("rule", get_args(schema.Rule))
def test_every_rule_has_words_and_a_next_step_of_its_own(rule):
    assert (rule in wording.RULE_WORDS, rule in wording.NEXT_STEPS) == (True, True)


def test_a_rule_that_is_new_here_is_told_all_the_same():
    found = spike(rule="silent_source", summary="")
    assert telling.heading(told(found)) == "Silent source: team search"
    assert dict(wording.facts(found))["Next"] == wording.ANY_STEP
    assert "Silent source" in json.dumps(message(told(found))[1])


@pytest.mark.parametrize(
    "notification",
    [
        pytest.param(told(), id="an ordinary alert"),
        pytest.param(
            told(spike(summary="&" * 5_000, scope_id="<" * 5_000, action=">" * 5_000)), id="nothing but escapes"
        ),
        pytest.param(told(spike(summary="x" * 151)), id="a summary just over the header"),
        pytest.param(told(spike(top_contributors=[Contributor("&" * 2_000, "1")] * 9)), id="many long drivers"),
        pytest.param(told(spike(runbook="https://a.test/" + "x" * 900)), id="a long runbook link"),
        pytest.param(told(*[spike(summary="&" * 5_000, action="<" * 5_000)] * 30), id="a large group"),
        pytest.param(told(paragraphs=("&" * 5_000, "<\n" * 900) * 9), id="long paragraphs beside an alert"),
        pytest.param(told(*[spike()] * 9, paragraphs=("&" * 5_000,) * 9, group={"a": "&" * 900}), id="everything"),
    ],
)
def test_a_slack_message_fits_and_cuts_no_escape(notification):
    text, blocks = message(notification, DASHBOARD)
    body = json.dumps({"text": text, "blocks": blocks})
    assert slack_standin.check(body.encode()) is None
    for shown in [text, *_mrkdwn_texts(blocks)]:
        rest = shown.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
        assert "&" not in rest


def test_slack_makes_no_links_and_mentions_of_what_others_wrote():
    blocks = message(told(spike(scope_id="<!channel> https://evil.test", runbook="javascript:alert(1)")))[1]
    assert all(
        text["verbatim"] and "<!channel>" not in text["text"]
        for block in blocks
        if block["type"] == "section"
        for text in [*block.get("fields", []), *([block["text"]] if "text" in block else [])]
    )
    assert "javascript" not in json.dumps(blocks)


def _mrkdwn_texts(blocks):
    for block in blocks:
        for text in [block.get("text"), *block.get("fields", []), *block.get("elements", [])]:
            if text and text["type"] == "mrkdwn":
                yield text["text"]


RUNBOOKS = "https://wiki.example.test/{rule}"


@pytest.mark.parametrize(
    ("runbook", "template", "linked"),
    [
        pytest.param("https://runbooks.example.test/spike", "", "https://runbooks.example.test/spike", id="its own"),
        pytest.param("", RUNBOOKS, "https://wiki.example.test/spend_spike", id="the operator's"),
        pytest.param("javascript:alert(1)", "", None, id="a script"),
        pytest.param("docs/runbook.md#spike", "", None, id="a path"),
        pytest.param("https://a.test/|x>", "", None, id="an address that would end the link"),
        pytest.param("", "", None, id="none"),
    ],
)
def test_a_runbook_is_linked_where_it_is_a_web_address(runbook, template, linked):
    found = told(spike(runbook=runbook))
    links = {link["text"]: link["href"] for link in pagerduty.event(found, DASHBOARD, template)[1]["links"]}
    assert links == {"Dashboard": f"{DASHBOARD}/alerts#{spike().dedup_key}"} | ({"Runbook": linked} if linked else {})
    assert (f"<{linked}|Runbook>" in json.dumps(message(found, DASHBOARD, template)[1])) == bool(linked)
    text = mail_text.text_of(found, DASHBOARD, template)
    assert (f"Runbook   {linked}" in text, "Runbook" in text) == (bool(linked), bool(linked))


HOSTILE = "a\r\nBcc: everyone@example.test\r\n\r\n<script>alert(1)</script>"


def test_a_mail_has_the_headers_that_we_set_and_no_others():
    found = told(spike(summary=HOSTILE, scope_id=HOSTILE), heading=HOSTILE, paragraphs=(HOSTILE,), group={"t": HOSTILE})
    composed = mail.compose(found, "s@x.test", ["a@x.test"], None, DASHBOARD)
    assert set(composed.keys()) == {
        "Subject",
        "From",
        "To",
        "Date",
        "Message-ID",
        "In-Reply-To",
        "References",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
    }
    html = composed.get_body(("html",)).get_content()
    assert "<script>" not in html
    assert b"\nBcc:" not in composed.as_bytes().partition(b"\n\n")[0]


@pytest.mark.parametrize(
    ("notification", "link"),
    [
        pytest.param(told(spike(dedup_key="a:b c")), f"{DASHBOARD}/alerts#a:b%20c", id="one alert: its own place"),
        pytest.param(told(spike(dedup_key="é" * 255)), f"{DASHBOARD}/alerts", id="a key that makes too long a link"),
        pytest.param(told(spike(), spike()), f"{DASHBOARD}/alerts", id="several: the page of alerts"),
        pytest.param(msgspec.structs.replace(told(), alerts=()), DASHBOARD, id="none: the dashboard"),
    ],
)
def test_a_message_leads_to(notification, link):
    assert telling.dashboard(notification, f"{DASHBOARD}/") == link
    assert telling.dashboard(notification, "") == ""


def test_a_command_is_not_broken_across_lines():
    for rule, step in wording.NEXT_STEPS.items():
        text = mail_text.text_of(told(spike(rule=rule)))
        assert all(command in text for command in step.split("`")[1::2])


def test_a_mails_text_fits_a_terminal():
    group = told(*[spike(summary="word " * 150, action="and " * 200)] * 3, paragraphs=("long " * 100,))
    text = mail_text.text_of(group, DASHBOARD)
    assert max(map(len, text.splitlines())) <= 78


@pytest.mark.parametrize(
    ("owner", "found"),
    [
        pytest.param("lead@example.test", "lead@example.test", id="an address"),
        pytest.param("Lead <lead@example.test>", "lead@example.test", id="an address with a name"),
        pytest.param("search team", "", id="a name"),
        pytest.param("", "", id="nobody"),
        pytest.param("a@b@c", "", id="two signs"),
        pytest.param("a@[", "", id="half a literal"),
        pytest.param("lead@example.test\r\nBcc: e@e.test", "", id="a header after it"),
        pytest.param("chef@büro.test", "", id="beyond ASCII"),
    ],
)
def test_an_owners_address(owner, found):
    assert mail.address(owner) == found


def test_a_mail_sent_twice_has_the_same_id_and_each_message_its_own():
    def message_id(**changes):
        return mail.compose(told(**changes), "s@x.test", ["a@x.test"])["Message-ID"]

    assert message_id() == message_id()
    assert len({message_id(), message_id(notification_id="other")}) == 2


@pytest.mark.parametrize("size", [0, 1, 2, 58, 59, 400])
def test_what_a_group_has_no_room_for_is_counted(size):
    alerts = [spike(summary=f"alert number {n};") for n in range(size)]
    text = mail_text.text_of(told(*alerts) if alerts else msgspec.structs.replace(told(reason="digest"), alerts=()))
    shown = sum(f"alert number {n};" in text for n in range(size))
    assert shown == min(size, mail_text.WHOLE_MAX + mail_text.LINES_MAX)
    assert ("… and" in text, f"and {size - shown} more ({size - shown} critical)" in text) == (
        size > shown,
        size > shown,
    )


CROWD = told(*[spike(summary=f"alert number {n};") for n in range(100)])
HELD = {"critical": 12, "info": 4_700, "ended": 100}


@pytest.mark.parametrize(
    ("channel", "named"),
    [
        pytest.param(lambda said: json.dumps(pagerduty.event(said)[1], ensure_ascii=False), 25, id="pagerduty"),
        pytest.param(lambda said: json.dumps(message(said)[1], ensure_ascii=False), 20, id="slack"),
        pytest.param(lambda said: " ".join(mail_text.text_of(said).split()), 58, id="mail"),
        pytest.param(mail_html.html_of, 58, id="mail in HTML"),
    ],
)
def test_every_channel_says_how_many_are_held_back_and_of_which_severities(channel, named):
    text = channel(msgspec.structs.replace(CROWD, held_back=HELD))
    assert "4,812 firing, 100 ended" in text
    assert f"and {4_912 - named:,} more ({112 - named} critical, 4,700 info, 100 ended)" in text


def test_a_webhook_counts_what_is_held_back_with_what_it_has_no_room_for():
    crowd = [spike(summary="x" * 3_900)] * 100
    data = json.loads(webhook.body_of(told(*crowd, held_back=HELD)))["data"]
    left = 100 - len(data["alerts"])
    assert left
    assert (data["firing"], data["ended"], data["left_out"]) == (4_812, 100, 4_812 + left)
    assert data["left_out_by"] == {"critical": 12 + left, "ended": 100, "info": 4_700}


@pytest.mark.parametrize(
    ("status", "heading"),
    [
        ("resolved", "Resolved, all 4,912 alerts have ended: alert number 0;"),
        ("opened", "No longer told here, 4,912 alerts: alert number 0;"),
    ],
)
def test_a_crowd_that_ends_says_of_how_many(status, heading):
    alerts = tuple(msgspec.structs.replace(each, status=status) for each in CROWD.alerts)
    over = msgspec.structs.replace(
        CROWD, alerts=alerts, action="resolve", reason="resolved", held_back={"ended": 4_812}
    )
    assert telling.heading(over) == heading


def test_a_next_step_is_said_once_for_each_rule_of_a_group():
    group = told(spike(), spike(rule="gpu_idle"), spike(rule="gpu_idle"), spike())
    for said in (mail_text.text_of(group), json.dumps(message(group)[1])):
        assert said.count("Release the GPUs") == said.count("a retry loop, a launch") == 1


def test_an_event_for_pagerduty_stays_below_its_bound():
    long = "\u00e9" * 5_000
    alerts = [spike(summary=long, action=long, scope_id=long, labels={f"l{n}": f"{n}{long}" for n in range(9)})] * 300
    event = pagerduty.event(told(*alerts, paragraphs=("\u00e9" * 2_000,) * 100))[1]
    assert len(json.dumps(event)) <= pagerduty.EVENT_BYTES_MAX
    assert len(event["payload"]["summary"]) <= 1024
    assert 0 < sum(name.startswith("alert ") for name in event["payload"]["custom_details"]) < pagerduty.ALERTS_MAX


def test_a_report_that_is_too_long_for_slack_says_so():
    found = told(heading="Week 47", paragraphs=tuple(f"row {n}: {'x' * 400}" for n in range(60)))
    texts = list(_mrkdwn_texts(message(msgspec.structs.replace(found, alerts=()))[1]))
    shown = sum(f"row {n}:" in text for n in range(60) for text in texts)
    assert 10 < shown < 60
    assert any(f"… and {60 - shown} more; the dashboard has all of them." in text for text in texts)
