"""The demo's judgement: nothing that is missing, and nothing that is too much, passes."""

from collections.abc import Callable

import pytest

from schemas.instants import HOUR, MINUTE, parse_instant
from streams.demo import verdict
from streams.demo.scenario import Scenario, plan
from streams.demo.verdict import Finding, Order, Page

SCENARIO: Scenario = plan(3, parse_instant("2026-11-21T04:48:11Z"))
RUNGS = ("50 %", "75 %", "90 %", "95 %", "100 %")


class Course:
    """A run in which everything went as it should; tests spoil one thing of it."""

    def __init__(self) -> None:
        spike, runaway, idle, over = SCENARIO.spike, SCENARIO.runaway, SCENARIO.idle, SCENARIO.overrun
        midnight = SCENARIO.calendar.midnight
        self.findings = [
            _finding("spike-team", "spend_spike", spike.team, spike.begins + 20 * MINUTE, spike.ends + HOUR),
            _finding(
                "spike-feature", "spend_spike", spike.feature, spike.begins + 20 * MINUTE, spike.ends + HOUR, "ticket"
            ),
            _finding("runaway", "runaway_request", runaway.feature, runaway.begins, runaway.begins + HOUR),
            _finding("idle", "gpu_idle", idle.subject, idle.begins + HOUR, idle.ends + 20 * MINUTE),
            *(
                _finding(rung, "budget_threshold", over.subject, over.begins + n * HOUR, midnight, threshold=rung)
                for n, rung in enumerate(RUNGS, 1)
            ),
        ]
        paged = ("spike-team", "runaway", "idle", "100 %")
        self.pages = [
            Page(f.dedup_key, f.summary, f.opened_at + 1, f.resolved_at) for f in self.findings if f.dedup_key in paged
        ]
        steps = (("rate_limit", 6), ("downgrade", 5), ("block", 4), ("allow", 0))
        self.orders = [Order(over.subject, action, midnight - hours * HOUR) for action, hours in steps]

    def failures(self) -> list[str]:
        return verdict.failures_of_incidents(SCENARIO, self.findings, self.pages, self.orders)


def _finding(
    key: str, rule: str, scope: str, opened: int, resolved: int | None, tier: str = "page", threshold: str = ""
) -> Finding:
    return Finding(key, rule, scope, threshold, tier, "resolved", f"summary of {key}", opened, resolved)


def test_a_run_as_it_should_be_has_no_failures_and_all_times() -> None:
    course = Course()
    assert course.failures() == []
    for story in verdict.stories(SCENARIO, course.findings, course.pages, course.orders):
        report = story.report()
        assert [name for name in ("detected", "paged", "resolved") if report[name] is None] == []
        is_budget = story.incident.kind == "budget_overrun"
        assert (report["throttled"] is not None, report["released"] is not None) == (is_budget, is_budget)


def _drop(*keys: str) -> Callable[[Course], None]:
    def spoil(course: Course) -> None:
        course.findings = [f for f in course.findings if f.dedup_key not in keys]
        course.pages = [p for p in course.pages if p.dedup_key not in keys]

    return spoil


def _unpaged(course: Course) -> None:
    course.pages = [page for page in course.pages if page.dedup_key != "idle"]


def _unresolved(course: Course) -> None:
    course.pages = [page._replace(resolved_at=None) for page in course.pages]


def _stranger(course: Course) -> None:
    course.findings.append(_finding("odd", "spend_spike", "mobile-web", SCENARIO.spike.begins, None))
    course.pages.append(Page("odd", "spike of nobody", SCENARIO.spike.begins, None))


def _too_early(course: Course) -> None:
    early = SCENARIO.spike.begins - HOUR
    course.findings[0] = course.findings[0]._replace(opened_at=early)


def _unknown_page(course: Course) -> None:
    course.pages.append(Page("never-an-alert", "from nowhere", SCENARIO.spike.begins, None))


def _twice(course: Course) -> None:
    course.pages.append(course.pages[0])


def _flicker(course: Course) -> None:
    course.orders += course.orders


def _wrong_limit(course: Course) -> None:
    course.orders.append(Order("search-daily", "rate_limit", SCENARIO.calendar.midnight))


def _wrong_block(course: Course) -> None:
    course.orders.append(Order("search-daily", "block", SCENARIO.calendar.midnight))


def _released_before(course: Course) -> None:
    course.orders = [
        order._replace(at=SCENARIO.calendar.day) if order.action == "allow" else order for order in course.orders
    ]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(_drop("spike-team", "spike-feature"), "was never detected", id="a spike is missed"),
        pytest.param(_drop("spike-feature"), "no ticket for the feature", id="only the team's spike is found"),
        pytest.param(_drop("runaway"), "runaway_request of", id="a runaway is missed"),
        pytest.param(_drop("75 %"), "never passed 75 %", id="a rung of the ladder is missed"),
        pytest.param(_unpaged, "was never paged", id="a page is missed"),
        pytest.param(_unresolved, "was never resolved", id="a page stays open"),
        pytest.param(_stranger, "nothing that was injected", id="a page for nothing"),
        pytest.param(_too_early, "nothing that was injected", id="a page before its incident"),
        pytest.param(_unknown_page, "nothing that was injected", id="a page without an alert"),
        pytest.param(_twice, "paged more than once", id="a page twice"),
        pytest.param(_flicker, "came 2 times", id="a throttle that flickers"),
        pytest.param(_wrong_block, "throttled for nothing", id="a block of the wrong team"),
        pytest.param(_wrong_limit, "throttled for nothing", id="a limit for the wrong team"),
        pytest.param(_released_before, "was never released", id="a release before its block"),
        pytest.param(lambda course: course.orders.clear(), "was never throttled", id="no throttle"),
    ],
)  # fmt: skip
def test_what_went_wrong_is_said(spoil: Callable[[Course], None], said: str) -> None:
    course = Course()
    spoil(course)
    assert any(said in failure for failure in course.failures()), course.failures()


@pytest.mark.parametrize(
    ("ledger", "oracle", "count"),
    [
        pytest.param({("h", "a"): (5, 1)}, {("h", "a"): (5, 1)}, 0, id="equal"),
        pytest.param({("h", "a"): (5, 1), ("h", "b"): (0, 0)}, {("h", "a"): (5, 1)}, 0, id="nothing is zero"),
        pytest.param({("h", "a"): (6, 1)}, {("h", "a"): (5, 1)}, 1, id="a nanodollar more"),
        pytest.param({("h", "a"): (5, 2)}, {("h", "a"): (5, 1)}, 1, id="a request more"),
        pytest.param({("h", "a"): (5, 1)}, {("h", "b"): (5, 1)}, 2, id="the right sum in the wrong group"),
    ],
)
def test_money_is_compared_group_by_group(
    ledger: dict[tuple[str, ...], tuple[int, int]], oracle: dict[tuple[str, ...], tuple[int, int]], count: int
) -> None:
    assert len(verdict.failures_of_money(ledger, oracle)) == count
