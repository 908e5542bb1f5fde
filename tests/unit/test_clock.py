"""The stream clock: now is how far the slowest source has come that still comes further."""

from streams.clock import GATHERING_S, PAUSE_S, SILENT_S, StreamClock


class _Elapsed:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


class _World:
    """A clock that somebody looks at often, as agents do."""

    def __init__(self, *, gathered: bool = True, **heard: int) -> None:
        self.elapsed = _Elapsed()
        self.clock = StreamClock(self.elapsed)
        self.hear(**heard)
        if gathered:
            self.pass_by(GATHERING_S)

    def hear(self, **heard: int) -> "_World":
        for source, event_time in heard.items():
            self.clock.observe(event_time, source)
        return self

    def pass_by(self, seconds: float, **also: int) -> "_World":
        until = self.elapsed.s + seconds
        while self.elapsed.s < until:
            self.elapsed.s += PAUSE_S / 2
            self.clock.now()
            self.hear(**also)
        return self

    def stall(self, seconds: float) -> "_World":
        self.elapsed.s += seconds
        return self


def test_the_fastest_source_does_not_carry_the_others_along():
    world = _World(a=10, b=5).hear(a=900)
    assert world.clock.now() == 5
    world.hear(b=700)
    assert world.clock.now() == 700


def test_a_source_that_comes_no_further_holds_nothing_back_after_a_while():
    world = _World(quiet=5).pass_by(SILENT_S + 1).hear(busy=900)
    # Late events and repetitions are no progress.
    world.hear(quiet=4)
    assert world.clock.now() == 900


def test_when_all_are_silent_it_is_as_late_as_the_furthest_came():
    assert _World(a=5, b=900).pass_by(SILENT_S + 1).clock.now() == 900


def test_it_never_goes_back_when_a_slow_source_appears():
    world = _World(a=900)
    assert world.clock.now() == 900
    assert world.hear(b=10).clock.now() == 900


def test_a_source_that_is_heard_a_moment_after_the_first_is_not_run_past():
    world = _World(a=10, gathered=False).hear(a=900).pass_by(GATHERING_S / 2)
    assert world.clock.now() == 10
    world.hear(b=20).pass_by(GATHERING_S)
    assert world.clock.now() == 20


def test_a_pause_of_the_process_makes_nobody_silent():
    world = _World(a=10, b=5).stall(60).hear(a=900)
    assert world.clock.now() == 5
    assert world.pass_by(SILENT_S + 1).clock.now() == 900


def test_a_source_without_a_time_of_its_own_says_nothing():
    assert _World(calls=900).hear(bills=0).clock.now() == 900


def test_before_anything_was_observed_it_is_the_machine_s_time():
    assert StreamClock(_Elapsed()).now() > 1_700_000_000_000_000
