"""Training runs, signed links, limits, grants and the release by API."""

import base64
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest

from schemas.commands import RELEASE_KEY
from schemas.instants import DAY, HOUR, format_instant, parse_instant
from streams.settings import load_settings
from streams.sinks.api_keys import ApiKeys
from tests.integration.api_parts import NO_BROKER, NOW, client_of
from tests.stores import MemoryDefinitions, MemoryReleases

SECRET = "s" * 32
BIG = {"id": "ft-7", "team": "search", "estimate_usd": "250", "estimate_hours": 12, "auto_shutdown": True}


class House:
    """The API, and callers with keys of their own."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool
        self.store = MemoryDefinitions(NOW)
        self.releases = MemoryReleases()
        self.secret: str | None = SECRET

    async def caller(self, *scopes: str, team: str = "") -> httpx.AsyncClient:
        key = await ApiKeys(self.pool).create(f"{team or 'all'} {' '.join(scopes)}", scopes, team) if scopes else ""
        secret = {"approval_secret": self.secret} if self.secret else {}
        settings = load_settings(kafka_url=NO_BROKER, public_url="http://127.0.0.1", **secret)
        return client_of(settings, self.pool, key, definitions=self.store, releases=self.releases)

    async def state(self) -> str:
        return (await self.store.current())["run|ft-7"].state  # type: ignore[union-attr]


@pytest.fixture
def house(pool: asyncpg.Pool) -> House:
    return House(pool)


async def announced(house: House, **changed: Any) -> dict[str, Any]:
    answer = await (await house.caller("ingest", team="search")).post("/v1/runs", json=BIG | changed)
    assert answer.status_code == 201, answer.text
    return answer.json()


# -- announcing and deciding ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimate", "state"),
    [
        pytest.param("10", "recorded", id="little: on record"),
        pytest.param("50.01", "recorded", id="above 50: on record is enough"),
        pytest.param("200", "recorded", id="200: no more than that"),
        pytest.param("200.000000001", "announced", id="above 200: waits for the lead"),
    ],
)
async def test_what_a_run_needs_depends_on_its_estimate(house, estimate, state):
    found = await announced(house, estimate_usd=estimate)
    assert found["state"] == state
    assert ("waits for the approval" in found["standing"]) is (state == "announced")


async def test_the_teams_lead_approves_and_nobody_else(house):
    await announced(house)
    body = {"reason": "worth it"}
    for caller, code in (
        (await house.caller("approve", team="risk"), 403),
        (await house.caller("approve"), 403),
        (await house.caller("budgets:write", "read", team="search"), 403),
        (await house.caller(), 401),
    ):
        assert (await caller.post("/v1/runs/ft-7/approve", json=body)).status_code == code
    assert await house.state() == "announced"
    done = await (await house.caller("approve", team="search")).post("/v1/runs/ft-7/approve", json=body)
    assert (done.status_code, done.json()["state"], done.json()["decided_by"]) == (200, "approved", "search approve")


async def test_an_approval_holds_for_no_more_than_was_approved(house):
    await announced(house)
    lead = await house.caller("approve", team="search")
    await lead.post("/v1/runs/ft-7/approve", json={"reason": "ok"})
    assert (await announced(house, estimate_usd="220"))["state"] == "approved"
    assert (await announced(house, estimate_usd="300"))["state"] == "announced"


async def test_the_lead_decides_on_the_estimate_that_was_seen(house):
    await announced(house, estimate_usd="300")
    lead = await house.caller("approve", team="search")
    answer = await lead.post("/v1/runs/ft-7/approve", json={"reason": "ok", "estimate_usd": 250})
    assert (answer.status_code, await house.state()) == (409, "announced")


async def test_a_refused_run_stays_refused(house):
    await announced(house)
    lead = await house.caller("approve", team="search")
    assert (await lead.post("/v1/runs/ft-7/refuse", json={"reason": "too dear"})).json()["outcome"] == "too dear"
    again = await (await house.caller("ingest", team="search")).post("/v1/runs", json=BIG | {"estimate_usd": 10})
    assert (again.status_code, "new id" in again.json()["detail"]) == (409, True)
    assert (await lead.post("/v1/runs/ft-7/approve", json={"reason": "oh well"})).status_code == 409


@pytest.mark.parametrize(
    ("scopes", "team", "code"),
    [
        pytest.param(("ingest",), "search", 201, id="the job's own key"),
        pytest.param(("budgets:write",), "", 201, id="the platform's key"),
        pytest.param(("ingest",), "", 403, id="a producer's key of no team"),
        pytest.param(("ingest",), "risk", 403, id="another team's"),
        pytest.param(("read",), "search", 403, id="a reader's"),
    ],
)
async def test_who_may_announce(house, scopes, team, code):
    assert (await (await house.caller(*scopes, team=team)).post("/v1/runs", json=BIG)).status_code == code


async def test_a_run_is_not_taken_over_by_another_team(house):
    await announced(house)
    answer = await (await house.caller("ingest", team="risk")).post("/v1/runs", json=BIG | {"team": "risk"})
    assert answer.status_code == 409


async def test_a_run_with_slashes_in_its_name_is_decided_on_and_ended(house):
    await announced(house, id="lab/ft/7")
    lead = await house.caller("approve", team="search")
    assert (await lead.post("/v1/runs/lab/ft/7/approve", json={"reason": "ok"})).status_code == 200
    job = await house.caller("ingest", team="search")
    over = (await job.post("/v1/runs/lab/ft/7/end", json={"outcome": "loss 0.31"})).json()
    assert (over["state"], over["outcome"], over["decided_by"]) == ("ended", "loss 0.31", "search approve")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (BIG | {"estimate_usd": "0"}, "estimate_usd"),
        (BIG | {"estimate_usd": "-3"}, "estimate_usd"),
        (BIG | {"id": "no spaces"}, "id"),
        (BIG | {"stop_at_percent": 50}, "stop_at_percent"),
        (BIG | {"estimate_hours": -1}, "estimate_hours"),
    ],
)
async def test_a_wrong_announcement_names_the_field(house, body, where):
    answer = await (await house.caller("budgets:write")).post("/v1/runs", json=body)
    assert (answer.status_code, [one["where"] for one in answer.json()["errors"]]) == (422, [where])


# -- signed links ---------------------------------------------------------------------------------------------------


async def link(house: House, until: str = "1h") -> str:
    lead = await house.caller("approve", team="search")
    answer = await lead.post("/v1/runs/ft-7/link", json={"to": "lead@example.com", "until": until})
    assert answer.status_code == 201, answer.text
    return answer.json()["url"].removeprefix("http://127.0.0.1")


async def test_opening_a_link_decides_nothing_and_its_form_decides_once(house):
    await announced(house)
    path = await link(house)
    nobody = await house.caller()
    for _ in range(3):
        page = await nobody.get(path)
        assert (page.status_code, "Approve" in page.text, "$250.00" in page.text) == (200, True, True)
        assert "form-action 'self'" in page.headers["content-security-policy"]
        assert page.headers["cache-control"] == "no-store"
    assert (await nobody.head(path)).status_code in (200, 405)
    assert await house.state() == "announced"
    done = await nobody.post(path, data={"verdict": "approved", "reason": "worth <b>it</b>"})
    assert (done.status_code, await house.state()) == (200, "approved")
    run = (await house.store.current())["run|ft-7"]
    assert run.decided_by == "lead@example.com (signed link)"
    assert (await nobody.post(path, data={"verdict": "refused"})).status_code == 410
    assert await house.state() == "approved"


def cut(path: str) -> str:
    return path[:-3]


def reforged(path: str) -> str:
    head, _, token = path.rpartition("/")
    body, _, mac = token.partition(".")
    said = msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    said[1] *= 100
    return f"{head}/{base64.urlsafe_b64encode(msgspec.json.encode(said)).decode().rstrip('=')}.{mac}"


@pytest.mark.parametrize(
    "bent",
    [
        pytest.param(cut, id="cut short"),
        pytest.param(reforged, id="with another estimate in it"),
        pytest.param(lambda path: path.partition(".")[0], id="without its signature"),
        pytest.param(lambda path: path.rpartition("/")[0] + "/nonsense", id="nonsense"),
        pytest.param(lambda path: path.rpartition("/")[0] + "/%C3%A9.%00", id="bytes that no link has"),
    ],
)
async def test_a_link_that_was_tampered_with_decides_nothing(house, bent):
    await announced(house)
    path = bent(await link(house))
    nobody = await house.caller()
    assert (await nobody.get(path)).status_code == 410
    assert (await nobody.post(path, data={"verdict": "approved"})).status_code == 410
    assert await house.state() == "announced"


async def test_a_link_of_another_secret_decides_nothing(house):
    await announced(house)
    path = await link(house)
    house.secret = "t" * 32
    assert (await (await house.caller()).post(path, data={"verdict": "approved"})).status_code == 410


async def test_a_link_is_void_once_the_run_asks_for_more(house):
    await announced(house)
    path = await link(house)
    await announced(house, estimate_usd="251")
    page = await (await house.caller()).post(path, data={"verdict": "approved"})
    assert (page.status_code, "$251.00" in page.text) == (410, True)


@pytest.mark.parametrize("until", ["15d", "yesterday", "2026-11-20T00:00:00Z"])
async def test_a_link_ends_within_two_weeks(house, until):
    await announced(house)
    lead = await house.caller("approve", team="search")
    answer = await lead.post("/v1/runs/ft-7/link", json={"to": "x", "until": until})
    assert answer.status_code == 422


async def test_whoever_announces_gets_no_link(house):
    await announced(house)
    for caller in (await house.caller("ingest", team="search"), await house.caller("budgets:write")):
        assert (await caller.post("/v1/runs/ft-7/link", json={"to": "me"})).status_code == 403


async def test_without_a_secret_there_are_no_links(house):
    house.secret = None
    await announced(house)
    lead = await house.caller("approve", team="search")
    answer = await lead.post("/v1/runs/ft-7/link", json={"to": "x"})
    assert (answer.status_code, "approval_secret" in answer.json()["detail"]) == (409, True)


async def test_what_others_wrote_is_no_markup_on_the_page(house):
    await announced(house, owner="<script>alert(1)</script>")
    page = await (await house.caller()).get(await link(house))
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text


async def test_a_form_beyond_reason_is_refused(house):
    await announced(house)
    path = await link(house)
    answer = await (await house.caller()).post(path, data={"verdict": "approved", "reason": "x" * 10_000})
    assert (answer.status_code, await house.state()) == (413, "announced")


# -- limits and grants ----------------------------------------------------------------------------------------------

BURST = {"scope": {"team": "search"}, "rpm": 600, "mode": "enforce"}


async def test_a_limit_is_defined_changed_and_withdrawn(house):
    caller = await house.caller("read", "budgets:write", team="search")
    made = await caller.put("/v1/limits/burst", json={"limit": BURST, "reason": "storms"})
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    assert (await caller.get("/v1/limits/burst")).json()["limit"] == {"id": "burst", **BURST}
    assert (await caller.put("/v1/limits/burst", json={"limit": BURST, "reason": "r"})).status_code == 428
    gone = await caller.delete("/v1/limits/burst?reason=calm", headers={"If-Match": '"1"'})
    assert (gone.status_code, (await caller.get("/v1/limits")).json()) == (204, {"limits": []})


@pytest.mark.parametrize(
    ("limit", "where"),
    [
        (BURST | {"rpm": 0}, "rpm"),
        (BURST | {"rpm": -1}, "rpm"),
        ({"scope": {"team": "search"}}, ""),
        (BURST | {"usd_per_minute": "-2"}, "usd_per_minute"),
        (BURST | {"scope": {"team": "*"}}, "scope"),
    ],
)
async def test_a_wrong_limit_names_the_field(house, limit, where):
    answer = await (await house.caller("budgets:write")).put("/v1/limits/burst", json={"limit": limit, "reason": "r"})
    assert (answer.status_code, [one["where"] for one in answer.json()["errors"]]) == (422, [where])


async def test_a_grant_is_given_until_a_time_and_taken_back(house):
    caller = await house.caller("read", "budgets:write")
    body = {"team": "search", "model": "openai/gpt-5-pro", "until": "30d", "reason": "a study"}
    given = (await caller.post("/v1/grants", json=body)).json()
    assert given["until"] == format_instant(NOW + 30 * DAY)
    assert (await caller.get("/v1/grants")).json()["grants"] == [given]
    assert (await caller.delete("/v1/grants/search/openai/gpt-5-pro?reason=over")).status_code == 204
    assert (await caller.get("/v1/grants")).json()["grants"] == []
    assert (await caller.delete("/v1/grants/search/openai/gpt-5-pro?reason=over")).status_code == 404


# -- release --------------------------------------------------------------------------------------------------------


async def test_a_release_is_said_at_once_and_ended_above_it(house):
    caller = await house.caller("read", "budgets:write")
    made = await caller.post("/v1/release", json={"until": "2h", "reason": "an incident"})
    assert (made.status_code, made.json()["until"]) == (201, format_instant(NOW + 2 * HOUR))
    assert (await caller.get("/v1/release")).json()["live"] is True
    longer = await caller.post("/v1/release", json={"until": "3h", "reason": "it goes on"})
    assert longer.json()["revision"] > made.json()["revision"]
    ended = await caller.delete("/v1/release?reason=over")
    assert (ended.status_code, (await caller.get("/v1/release")).json()["live"]) == (200, False)
    first, second, last = house.releases.said
    assert [one.action for one in house.releases.said] == ["release", "release", "allow"]
    assert first.revision < second.revision < last.revision
    assert parse_instant(last.expires_at) > parse_instant(second.expires_at)
    assert all(word in first.reason for word in ("all read budgets:write", "an incident"))
    assert (await caller.delete("/v1/release?reason=over")).status_code == 404
    assert RELEASE_KEY == "*|release"


@pytest.mark.parametrize("until", ["8d", "0h", "-2h", "soon", "2026-11-21T14:35:10Z", "", "99999999999999h"])
async def test_a_release_ends_within_a_week(house, until):
    caller = await house.caller("budgets:write")
    answer = await caller.post("/v1/release", json={"until": until, "reason": "r"})
    assert (answer.status_code, house.releases.said) == (422, [])
