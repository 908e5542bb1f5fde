"""What people do with alerts, by API: take them in hand, silence them, close their reviews; and what everybody sees."""

import pytest
from msgspec.structs import replace

from schemas.instants import DAY, HOUR, MINUTE, SECOND, format_instant
from streams.core.alert_life import review_of
from streams.settings import Settings
from streams.sinks.acknowledgements import load_acknowledgements
from streams.sinks.alert_records import unreviewed
from streams.sinks.api_keys import ApiKeys
from streams.sinks.reviews import list_reviews, open_reviews
from streams.sinks.silences import load_silences
from tests.integration.alert_rows import KEY, alert, put, tell
from tests.integration.api_parts import NO_BROKER, NOW, client_of, got

SETTINGS = Settings(kafka_url=NO_BROKER)
PATH = f"/v1/alerts/{KEY}"


@pytest.fixture
async def client(pool):
    key = await ApiKeys(pool).create("anna", ["alerts:write", "read"])
    async with client_of(SETTINGS, pool, key) as opened:
        yield opened


async def of_team(pool, team: str):
    key = await ApiKeys(pool).create(f"{team} bot", ["alerts:write", "read"], team)
    return client_of(Settings(kafka_url=NO_BROKER, api_open_reads=False), pool, key)


async def test_an_acknowledged_alert_says_by_whom_and_the_word_is_what_delivery_reads(client, pool):
    await put(pool, alert())
    answer = await client.put(f"{PATH}/acknowledgement", json={"by": "Anna", "note": "looking at the loop"})
    assert answer.status_code == 200, answer.text
    (shown,) = (await got(client, "/v1/alerts"))["alerts"]
    assert (shown["stage"], shown["acknowledged"]["by"], shown["acknowledged"]["via"]) == (
        "acknowledged", "Anna (anna)", "api",
    )  # fmt: skip
    held = await load_acknowledgements(pool, [KEY])
    assert held[KEY, 1].at == NOW


async def test_an_acknowledgement_that_is_given_back_is_gone_and_stays_in_the_story(client, pool):
    await put(pool, alert())
    await client.put(f"{PATH}/acknowledgement", json={})
    assert (await client.delete(f"{PATH}/acknowledgement?by=Ben")).status_code == 200
    found = await got(client, PATH)
    assert found["alert"]["stage"] == "firing"
    assert {word["kind"] for word in found["words"]} == {"acknowledged", "withdrawn"}


async def test_of_what_ended_the_last_to_end_comes_first_and_says_since_when_and_when_it_ended(client, pool):
    for name, began, ended in (("long", 0, 90), ("short", 60, 70)):
        opened = alert(key=name, at=NOW + began * MINUTE)
        await put(pool, opened)
        await put(pool, replace(opened, status="resolved", stated_at=format_instant(NOW + ended * MINUTE)))
    shown = (await got(client, "/v1/alerts?status=resolved"))["alerts"]
    assert [(one["dedup_key"], one["occurred_at"], one["resolved_at"]) for one in shown] == [
        ("long", format_instant(NOW), format_instant(NOW + 90 * MINUTE)),
        ("short", format_instant(NOW + 60 * MINUTE), format_instant(NOW + 70 * MINUTE)),
    ]


async def test_a_new_episode_is_in_nobodys_hands(client, pool):
    await put(pool, alert())
    await client.put(f"{PATH}/acknowledgement", json={})
    await put(pool, alert("resolved", at=NOW + MINUTE))
    await put(pool, alert(episode=2, at=NOW + 2 * MINUTE))
    found = await got(client, PATH)
    assert (found["alert"]["stage"], found["alert"]["acknowledged"]) == ("firing", None)
    assert [(one["episode"], one["resolved_at"] is None) for one in found["episodes"]] == [(2, True), (1, False)]


async def test_a_resolved_alert_is_taken_in_hand_by_nobody(client, pool):
    await put(pool, alert("resolved"))
    answer = await client.put(f"{PATH}/acknowledgement", json={})
    assert (answer.status_code, "is resolved" in answer.json()["detail"]) == (409, True)


async def test_the_story_of_an_alert_has_worse_and_better_once_each(client, pool):
    for _ in range(2):
        await put(pool, alert(severity="warning", tier="ticket"))
        await put(pool, alert("updated", step=1, at=NOW + SECOND))
    (episode,) = (await got(client, PATH))["episodes"]
    assert [said["severity"] for said in episode["statements"]] == ["emergency", "warning"]


async def test_what_was_sent_to_whom_is_with_the_alert(client, pool):
    said = alert()
    await put(pool, said)
    name = await tell(pool, said, "pagerduty")
    await tell(pool, said, "slack")
    await pool.execute(
        "update outbox set state = 'sent', sent_at = now(), receipt = 'pd-1', attempts = 2 where notification_id = $1", name
    )  # fmt: skip
    told = {one["receiver"]: one for one in (await got(client, PATH))["deliveries"]}
    assert (told["pagerduty"]["state"], told["pagerduty"]["receipt"], told["slack"]["state"]) == (
        "sent",
        "pd-1",
        "owed",
    )


async def test_an_alert_is_found_by_its_short_id_too(client, pool):
    await put(pool, alert())
    (shown,) = (await got(client, "/v1/alerts"))["alerts"]
    assert (await got(client, f"/v1/alerts/{shown['id']}"))["alert"]["dedup_key"] == KEY


async def test_a_key_with_a_slash_and_a_space_in_it_can_be_asked_for(client, pool):
    odd = "v1:spend_spike:team:ml/ops #1?:2026"
    await put(pool, alert(key=odd))
    found = await got(client, "/v1/alerts/v1:spend_spike:team:ml%2Fops%20%231%3F:2026")
    assert found["alert"]["dedup_key"] == odd
    answer = await client.put("/v1/alerts/v1:spend_spike:team:ml%2Fops%20%231%3F:2026/acknowledgement", json={})
    assert answer.json()["stage"] == "acknowledged"


async def test_another_teams_key_neither_sees_nor_acknowledges_an_alert(pool):
    await put(pool, alert())
    async with await of_team(pool, "risk") as stranger:
        assert (await stranger.get(PATH)).status_code == 404
        assert (await stranger.put(f"{PATH}/acknowledgement", json={})).status_code == 403
    async with await of_team(pool, "search") as own:
        assert (await own.put(f"{PATH}/acknowledgement", json={})).status_code == 200


async def test_a_key_that_may_only_read_changes_nothing(pool):
    await put(pool, alert())
    key = await ApiKeys(pool).create("board", ["read", "budgets:write"])
    async with client_of(SETTINGS, pool, key) as reader:
        for answer in (
            await reader.put(f"{PATH}/acknowledgement", json={}),
            await reader.post("/v1/silences", json={"matchers": ["team=search"], "ends": "1h", "reason": "x"}),
            await reader.put("/v1/reviews/abc/outcome", json={"outcome": "x"}),
        ):
            assert (answer.status_code, "alerts:write" in answer.json()["detail"]) == (403, True)


async def test_a_silence_holds_until_it_ends_and_says_who_and_why(client, pool):
    await put(pool, alert())
    body = {"matchers": ["team=search", 'severity=~"critical|emergency"'], "ends": "2h", "reason": "a load test"}
    made = await client.post("/v1/silences", json=body)
    assert (made.status_code, made.json()["holds_back"]) == (201, 1)
    (shown,) = (await got(client, "/v1/alerts"))["alerts"]
    assert (shown["stage"], shown["silenced"]["by"], shown["silenced"]["reason"]) == ("silenced", "anna", "a load test")
    (held,) = await load_silences(pool, NOW + HOUR)
    assert held.ends == NOW + 2 * HOUR
    assert await load_silences(pool, NOW + 2 * HOUR) == ()


async def test_the_same_silence_posted_twice_is_there_once(client, pool):
    body = {"matchers": ["team=search"], "ends": format_instant(NOW + HOUR), "reason": "a load test"}
    first, second = [(await client.post("/v1/silences", json=body)).json() for _ in range(2)]
    assert first["id"] == second["id"]
    assert len((await got(client, "/v1/silences"))["silences"]) == 1


async def test_a_silence_that_is_ended_early_lets_its_alerts_speak(client, pool):
    await put(pool, alert())
    body = {"matchers": ["team=search"], "ends": "2h", "reason": "a load test"}
    made = (await client.post("/v1/silences", json=body)).json()
    assert (await client.delete(f"/v1/silences/{made['id']}?by=Ben")).json()["state"] == "ended"
    assert (await client.delete(f"/v1/silences/{made['id']}")).status_code == 404
    (shown,) = (await got(client, "/v1/alerts"))["alerts"]
    assert shown["stage"] == "firing"
    assert await load_silences(pool, NOW) == ()
    (past,) = (await got(client, "/v1/silences"))["silences"]
    assert (past["state"], past["ended_by"]) == ("ended", "Ben (anna)")


async def test_a_silence_that_is_to_come_holds_nothing_yet(client, pool):
    await put(pool, alert())
    body = {"matchers": ["team=search"], "starts": format_instant(NOW + HOUR), "ends": "2h", "reason": "tomorrow"}
    assert (await client.post("/v1/silences", json=body)).json()["state"] == "coming"
    assert await load_silences(pool, NOW) == ()
    assert len(await load_silences(pool, NOW + HOUR)) == 1


async def test_a_teams_key_silences_its_own_team_alone(pool):
    async with await of_team(pool, "search") as own:
        all_ = await own.post("/v1/silences", json={"matchers": ["severity=info"], "ends": "1h", "reason": "noise"})
        assert (all_.status_code, "add team=search" in all_.json()["detail"]) == (422, True)
        mine = await own.post(
            "/v1/silences", json={"matchers": ["severity=info", "team=search"], "ends": "1h", "reason": "noise"}
        )
        assert mine.status_code == 201
    async with await of_team(pool, "risk") as other:
        assert (await got(other, "/v1/silences"))["silences"] == []
        assert (await other.delete(f"/v1/silences/{mine.json()['id']}")).status_code == 404


async def opened(pool, **said):
    await put(pool, alert(**said))
    for row in await unreviewed(pool, NOW - DAY, 10):
        found = review_of(alert(**said), NOW, 3 * DAY, {"search": "lead@example.com"})
        assert found is not None
        assert row["dedup_key"] == found.dedup_key
        await open_reviews(pool, [found])


async def test_a_critical_alert_has_one_review_an_episode_with_owner_and_day(client, pool):
    for _ in range(2):
        await opened(pool)
    (review,) = (await got(client, "/v1/reviews"))["reviews"]
    assert (review["owner"], review["due_at"], review["overdue"]) == (
        "lead@example.com", format_instant(NOW + 3 * DAY), False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [{"severity": "warning", "tier": "ticket"}, {"historic": True}, {"at": NOW - 2 * DAY}],
    ids=["a warning", "history", "what is long past"],
)
async def test_no_review_is_asked_for(pool, said):
    await put(pool, alert(**said))
    assert await unreviewed(pool, NOW - DAY, 10) == []


async def test_an_alert_that_was_critical_for_a_moment_is_reviewed_as_it_was_at_its_worst(pool):
    await put(pool, alert())
    await put(pool, alert("updated", step=1, severity="warning", summary="less", at=NOW + SECOND))
    (row,) = await unreviewed(pool, NOW - DAY, 10)
    assert (row["severity"], row["summary"]) == ("emergency", alert().summary)


async def test_a_review_is_closed_with_an_outcome_once(client, pool):
    await opened(pool)
    (review,) = (await got(client, "/v1/reviews"))["reviews"]
    path = f"/v1/reviews/{review['id']}/outcome"
    assert (await client.put(path, json={"outcome": "  "})).status_code == 422
    done = (await client.put(path, json={"outcome": "A retry loop; capped at 3.", "by": "Anna"})).json()
    assert (done["state"], done["closed_by"]) == ("closed", "Anna (anna)")
    assert (await client.put(path, json={"outcome": "again"})).status_code == 409
    assert (await got(client, "/v1/reviews"))["reviews"] == []
    assert len((await got(client, "/v1/reviews?closed=true"))["reviews"]) == 1


async def test_a_review_that_nobody_closed_is_overdue_and_can_be_handed_over(client, pool):
    await opened(pool, at=NOW - HOUR)
    await pool.execute("update reviews set due_at = opened_at - interval '1 day'")
    found = await got(client, "/v1/reviews")
    assert (found["overdue"], found["reviews"][0]["overdue"]) == (1, True)
    metrics = (await client.get("/metrics")).text
    assert 'sluice_reviews_open{state="overdue"} 1.0' in metrics
    assert "sluice_silences_live 0.0" in metrics
    path = f"/v1/reviews/{found['reviews'][0]['id']}"
    moved = (await client.patch(path, json={"owner": "Ben", "due": "2d"})).json()
    assert (moved["owner"], moved["overdue"]) == ("Ben", False)
    assert (await client.patch(path, json={})).status_code == 422
    assert len(await list_reviews(pool)) == 1


async def test_an_alert_that_another_one_makes_needless_says_which(client, pool):
    """As NOTIFY leaves it with the group that spoke last."""
    await put(pool, alert())
    await put(pool, alert(key="below", scope_id="kyc"))
    await pool.execute(
        "insert into notify_groups (group_key, body, mutes) values ('g', '{}', $1)",
        [
            {"dedup_key": "below", "by": "inhibition", "what": KEY, "receivers": []},
            {"dedup_key": KEY, "by": "inhibition", "what": "org", "receivers": ["pagerduty"]},
            {"dedup_key": KEY, "by": "quiet_hours", "what": "nights", "receivers": ["pagerduty"]},
        ],
    )
    for key in (KEY, "below"):
        await pool.execute(
            "insert into notify_members (group_key, dedup_key, receivers, interval_us) values ('g', $1, '{}', 0)", key
        )
    found = {one["dedup_key"]: one for one in (await got(client, "/v1/alerts"))["alerts"]}
    assert (found["below"]["stage"], found["below"]["inhibited_by"]) == ("inhibited", KEY)
    assert (found[KEY]["stage"], found[KEY]["inhibited_by"]) == ("firing", None)
    assert [held["what"] for held in found[KEY]["held_back"]] == ["org", "nights"]
