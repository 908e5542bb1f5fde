"""What an answer means to a habit that has changed: the new level is the usual, or it is not."""

from msgspec.structs import replace

from schemas.alerts import Alert
from schemas.answers import AlertAnswer
from schemas.instants import DAY, HOUR
from schemas.money import NANOS
from streams.core.answers import Lessons
from streams.core.detect_reach import Reach
from streams.core.detect_regime import RegimeState, step_regime, tick_regime
from tests.unit.test_detect_regime import CHANGE, POLICY, START, course


class Habits:
    """A scope whose price a token has doubled, and what people say of it."""

    def __init__(self) -> None:
        self.state, self.hour = RegimeState(scope="team:search"), 0
        self.answers: list[AlertAnswer] = []
        self.alerts: list[Alert] = []

    def hours(self, count: int, **changes) -> list[Alert]:
        """So many hours on; what is said in them."""
        said: list[Alert] = []
        for totals in course(self.hour + count, at=self.hour, **changes)[self.hour :]:
            at = START + self.hour * HOUR
            self.state, new = step_regime(self.state, at, totals, at + HOUR, POLICY, None, Lessons(self.answers))
            said += new
            self.hour += 1
        self.alerts += said
        return said

    def says(self, alert: Alert, kind: str, usd: float = 0) -> list[Alert]:
        self.answers = [each for each in self.answers if each.alert != alert.dedup_key]
        now = START + self.hour * HOUR
        self.answers.append(
            AlertAnswer(
                alert=alert.dedup_key, rule=alert.rule, answer=kind, teaches=alert.teaches, figures=alert.figures,
                starts=now - DAY, until=now + DAY, nanos=round(usd * NANOS), known_from=0,
            )
        )  # fmt: skip
        self.state = replace(self.state, reaches={"usage.events.v1@0-0": Reach(now, now)})
        self.state, said = tick_regime(self.state, now, POLICY, None, Lessons(self.answers))
        self.alerts += said
        return said


def changed() -> tuple[Habits, Alert]:
    habits = Habits()
    assert habits.hours(CHANGE) == []
    said = habits.hours(8, price=6.0)
    assert prices(said)[:1] == ["opened"]
    # As it stands: the answer is to what was said last.
    return habits, [alert for alert in said if alert.teaches == "regime_change|team:search|price|up"][-1]


def prices(alerts: list[Alert]) -> list[str]:
    return [alert.status for alert in alerts if "|price|" in alert.teaches and alert.teaches.endswith("up")]


def test_no_makes_the_new_level_the_usual_at_once():
    habits, opened = changed()
    [ended] = habits.says(opened, "no")
    assert ended.status == "resolved"
    assert ended.summary.startswith("Normal here or planned, as was answered: Team search: ")
    assert prices(habits.hours(72, price=6.0)) == []


def test_after_no_the_same_change_is_not_told_again_and_a_larger_one_is():
    habits, opened = changed()
    habits.says(opened, "no")
    habits.hours(72)
    assert prices(habits.hours(10, price=6.0)) == []
    larger = Habits()
    larger.state, larger.answers, larger.hour = habits.state, habits.answers, habits.hour
    assert prices(larger.hours(12, price=30.0))[:1] == ["opened"]


def test_after_yes_it_does_not_become_the_usual_within_a_day():
    for kind, expected in (("", ["resolved"]), ("yes", [])):
        habits, opened = changed()
        if kind:
            assert habits.says(opened, kind) == []
        said = [alert for alert in habits.hours(22, price=6.0) if alert.status == "resolved"]
        assert prices(said) == expected


def test_what_was_planned_is_quiet_while_it_costs_no_more_than_half_as_much_again_an_hour():
    habits, opened = changed()
    waste = float(opened.at_stake_per_hour)
    assert prices(habits.says(opened, "planned", usd=waste)) == ["resolved"]
    habits, opened = changed()
    assert habits.says(opened, "planned", usd=waste / 2) == []
