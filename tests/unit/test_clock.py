"""The stream clock: now is how far the slowest source has come that still comes further."""

from streams.clock import SILENT_S, StreamClock


class _Elapsed:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def _clock() -> tuple[StreamClock, _Elapsed]:
    elapsed = _Elapsed()
    return StreamClock(elapsed), elapsed


def test_the_fastest_source_does_not_carry_the_others_along():
    clock, elapsed = _clock()
    clock.observe(10, "a")
    clock.observe(5, "b")
    elapsed.s += SILENT_S / 2
    clock.observe(900, "a")
    assert clock.now() == 5
    clock.observe(700, "b")
    assert clock.now() == 700


def test_a_source_that_comes_no_further_holds_nothing_back_after_a_while():
    clock, elapsed = _clock()
    clock.observe(5, "quiet")
    elapsed.s += SILENT_S + 0.1
    clock.observe(900, "busy")
    # Late events and repetitions are no progress.
    clock.observe(4, "quiet")
    assert clock.now() == 900


def test_when_all_are_silent_it_is_as_late_as_the_furthest_came():
    clock, elapsed = _clock()
    clock.observe(5, "a")
    clock.observe(900, "b")
    elapsed.s += SILENT_S + 0.1
    assert clock.now() == 900


def test_it_never_goes_back_when_a_slow_source_appears():
    clock, _ = _clock()
    clock.observe(900, "a")
    assert clock.now() == 900
    clock.observe(10, "b")
    assert clock.now() == 900


def test_a_source_without_a_time_of_its_own_says_nothing():
    clock, _ = _clock()
    clock.observe(900, "calls")
    clock.observe(0, "bills")
    assert clock.now() == 900


def test_before_anything_was_observed_it_is_the_machine_s_time():
    assert _clock()[0].now() > 1_700_000_000_000_000
