"""Forecast rungs: told as tickets once they have stood, taken back with a distance, and never a measure."""

import pytest

from schemas.budgets import Rung
from schemas.instants import HOUR, MINUTE
from schemas.money import NANOS
from streams.core import budgets
from streams.core.budget_rungs import BLOCK
from streams.core.budgets import Around, Policy
from tests.unit.records import NOON
from tests.unit.test_budgets import DAY_END, TERMS, said

FORESEEN = TERMS._replace(
    thresholds=(Rung(100, "warning", on="forecast"), Rung(100, "emergency", (BLOCK,))),
    period="month",
    ends=0,
)


class Foreseen:
    """A budget that has spent forty of a hundred dollars, and what is expected of it hour by hour."""

    def __init__(self, usd: float = 40) -> None:
        self.now, self.alerts, self.actions = NOON, [], []
        statement = said(usd, offset=0)
        statement.period_end = DAY_END + 20 * 24 * HOUR
        self.state = budgets.take_in(None, FORESEEN, statement)

    def expects(self, *dollars: float | None, every: int = HOUR) -> "Foreseen":
        for usd in dollars:
            self.state.stream_time = self.now
            projected = None if usd is None else int(usd * NANOS)
            decision = budgets.decide(self.state, FORESEEN, self.now, Policy(), (), Around(projected=projected))
            self.alerts += [alert for alert in decision.alerts if alert.rule == "budget_forecast"]
            self.actions += [decision.command.action] if decision.command else []
            self.now += every
        return self

    @property
    def told(self) -> list[str]:
        return [alert.status for alert in self.alerts]


@pytest.mark.parametrize(
    ("dollars", "told"),
    [
        ([130] * 6, []),
        ([130] * 7, ["opened"]),
        ([130] * 3 + [90] + [130] * 6, []),
        ([130] * 3 + [90] + [130] * 7, ["opened"]),
        ([130] * 3 + [None] * 2 + [130] * 3, ["opened"]),
        ([130] * 7 + [96] * 3, ["opened"]),
        ([130] * 7 + [94], ["opened", "resolved"]),
        ([130] * 7 + [94] + [130] * 7, ["opened", "resolved", "opened"]),
        ([None] * 20, []),
        ([99] * 20, []),
    ],
    ids=[
        "not for long enough", "for six hours", "with a break", "six hours after a break",
        "what nobody could say in between is no break", "a little below is not below", "taken back", "a second episode",
        "nobody can say", "never above",
    ],
)  # fmt: skip
def test_a_forecast_is_told_when_it_has_stood(dollars, told):
    foreseen = Foreseen().expects(*dollars)
    assert foreseen.told == told
    assert {alert.tier for alert in foreseen.alerts} <= {"ticket"}
    assert foreseen.actions == [], "a forecast never throttles"


def test_a_forecast_that_came_true_is_taken_back_when_the_rung_itself_is_crossed():
    foreseen = Foreseen().expects(*[130] * 7)
    budgets.take_in(foreseen.state, FORESEEN, said(101, offset=9, at=foreseen.now))
    foreseen.expects(140)
    assert foreseen.told == ["opened", "resolved"]
    assert foreseen.actions == ["block"]


def test_how_often_it_is_judged_does_not_matter():
    assert Foreseen().expects(*[130] * 361, every=MINUTE).told == ["opened"]
    assert Foreseen().expects(*[130] * 360, every=MINUTE).told == []


def test_a_forecast_says_what_is_expected_beside_the_amount():
    (alert,) = Foreseen().expects(*[130] * 7).alerts
    assert (alert.observed, alert.expected, alert.threshold) == ("130", "100", "100 % (forecast)")
    assert "will pass 100 %" in alert.summary
