"""Graded measures at the gate: whom they are about, which of several holds, when they end, and what opens everything."""

import pytest

from gateway.commands import ALLOWED, CommandBook
from schemas.commands import RELEASE_KEY, Measure, Target, ThrottleCommand
from schemas.instants import HOUR, MINUTE, SECOND, format_instant

NOON = 1_800_000_000_000_000
BLOCK = Measure("block")
CALL = {"team": "search", "feature": "chat", "model": "gpt-4o", "environment": "staging", "request_type": "interactive"}


def command(*measures, revision=1, budget="b", scope=("team", "search"), **fields):
    return ThrottleCommand(
        command_id=fields.pop("command_id", f"{scope[0]}:{scope[1]}|{budget}#{revision}"),
        budget_id=budget,
        target=Target(*scope),
        action=fields.pop("action", measures[0].action if measures else "allow"),
        revision=revision,
        reason=f"{budget} is spent.",
        issued_at=format_instant(NOON),
        effective_at=format_instant(NOON),
        expires_at=format_instant(NOON + fields.pop("ends_in", 15 * MINUTE)),
        holds_until=format_instant(NOON + fields.pop("over_in")) if "over_in" in fields else "",
        measures=measures,
        **fields,
    )


def release(revision=1, **fields):
    return command(revision=revision, scope=("org", "*"), budget="release", action="release", **fields)


def book_of(*commands):
    book = CommandBook(clock=lambda: NOON)
    for one in commands:
        book.apply(RELEASE_KEY if one.action == "release" else one.key(), one)
    return book


def outcome(decision):
    """What a caller notices, in short."""
    if not decision.allowed:
        return f"{decision.http_status} {decision.action}"
    done = [
        decision.model_fallback and f"-> {decision.model_fallback}",
        decision.max_tokens and f"<= {decision.max_tokens}",
    ]
    return " ".join(filter(None, done)) or "goes"


@pytest.mark.parametrize(
    ("measure", "call", "found"),
    [
        (Measure("block", request_types=("batch",)), {}, "goes"),
        (Measure("block", request_types=("batch",)), {"request_type": "batch"}, "429 block"),
        (Measure("block", environments=("staging",)), {}, "429 block"),
        (Measure("block", environments=("staging",)), {"environment": "prod"}, "goes"),
        (Measure("block", environments=("!prod", "!production")), {}, "429 block"),
        (Measure("block", environments=("!prod", "!production")), {"environment": ""}, "429 block"),
        (Measure("block", environments=("!prod", "!production")), {"environment": "production"}, "goes"),
        (Measure("block", environments=("dev",), request_types=("batch",)), {"environment": "dev"}, "goes"),
        (Measure("cap_tokens", max_tokens=256), {}, "<= 256"),
        (Measure("downgrade", models={"gpt-4o": "gpt-4o-mini"}), {}, "-> gpt-4o-mini"),
        (Measure("downgrade", models={"gpt-4o": "gpt-4o-mini"}), {"model": "o3"}, "goes"),
        (Measure("downgrade", models={"gpt-4o": "gpt-4o-mini", "*": "small"}), {"model": "o3"}, "-> small"),
        (Measure("downgrade", models={"*": "small"}), {"model": "small"}, "goes"),
        (Measure("rate_limit", rpm=0), {}, "429 rate_limit"),
        (Measure("rate_limit", tpm=0), {}, "429 rate_limit"),
    ],
    ids=[
        "a measure for batch calls leaves interactive ones alone",
        "a measure for batch calls takes a batch call",
        "a measure for staging takes a call of staging",
        "a measure for staging leaves production alone",
        "all but production takes staging",
        "all but production takes a call that names no environment",
        "all but production leaves production alone",
        "environment and request type must both fit",
        "a cap says the most tokens",
        "a model that is named gets what stands beside it",
        "a model that is not named stays",
        "a model that is not named gets what stands beside the star",
        "the star does not replace a model by itself",
        "no calls a minute is none",
        "no tokens a minute is none",
    ],
)
def test_a_measure_is_about_a_part_of_the_calls(measure, call, found):
    assert outcome(book_of(command(measure)).check(**(CALL | call))) == found


@pytest.mark.parametrize(
    ("commands", "found"),
    [
        ([command(Measure("cap_tokens", max_tokens=9), Measure("downgrade", models={"*": "mini"}))], "-> mini <= 9"),
        ([command(Measure("cap_tokens", max_tokens=9), BLOCK)], "429 block"),
        (
            [
                command(Measure("cap_tokens", max_tokens=9), budget="a"),
                command(Measure("cap_tokens", max_tokens=7), budget="b"),
            ],
            "<= 7",
        ),
        (
            [
                command(Measure("cap_tokens", max_tokens=9)),
                command(Measure("downgrade", models={"*": "mini"}), scope=("feature", "chat")),
            ],
            "-> mini <= 9",
        ),
        (
            [
                command(Measure("downgrade", models={"gpt-4o": "mini"}), budget="a"),
                command(Measure("downgrade", models={"mini": "nano"}), budget="b", ends_in=MINUTE),
            ],
            "-> nano",
        ),
        (
            [command(Measure("downgrade", models={"*": "mini"})), command(BLOCK, scope=("model", "mini"))],
            "429 block",
        ),
        (
            [
                command(Measure("downgrade", models={"*": "mini"})),
                command(Measure("cap_tokens", max_tokens=5), scope=("model", "mini")),
            ],
            "-> mini <= 5",
        ),
        ([command(BLOCK, scope=("request_type", "interactive"))], "429 block"),
        ([command(BLOCK, scope=("team", "*"))], "429 block"),
        ([command(BLOCK, match=(("feature", "chat"), ("feature", "mail")))], "429 block"),
        ([command(BLOCK, match=(("feature", "mail"),))], "goes"),
        ([command(BLOCK, exempt_models=("gpt-4o",))], "goes"),
        ([command(BLOCK, exempt_models=("self/*", "gpt-*"))], "goes"),
        ([command(BLOCK, exempt_models=("gpt",))], "429 block"),
        ([command(BLOCK, exempt_models=("gpt-4o",), budget="a"), command(BLOCK, budget="b")], "429 block"),
        ([command(BLOCK, dry_run=True)], "goes"),
        ([command(action="block")], "429 block"),
        ([command(action="downgrade", model_fallback="mini")], "-> mini"),
    ],
    ids=[
        "measures of one command add up",
        "a block outweighs what is milder",
        "of two caps the lower",
        "measures of two scopes add up",
        "a second downgrade goes on from the first",
        "a call is not sent to a model that is blocked itself",
        "what is limited for the cheaper model counts",
        "a request type can be the target",
        "a star is everybody",
        "a condition that fits",
        "a condition that does not fit",
        "an exempt model is never touched",
        "exempt models may be patterns",
        "a pattern without a star is the whole name",
        "what one budget exempts another may block",
        "a dry run does nothing",
        "without measures the action stands for all calls",
        "without measures a downgrade is for every model",
    ],
)
def test_the_strictest_that_applies_holds(commands, found):
    assert outcome(book_of(*commands).check(**CALL)) == found


@pytest.mark.parametrize("scope_type", ["provider", "experiment", "run", "key", "user", "task", "session", "org"])
def test_every_kind_of_scope_can_be_throttled(scope_type):
    book = book_of(command(BLOCK, scope=(scope_type, "it")))
    assert not book.check(**CALL, **{scope_type: "it"}).allowed
    assert book.check(**CALL, **{scope_type: "other"}).allowed


def test_two_rates_must_both_have_room_and_a_refusal_costs_neither():
    book = book_of(
        command(Measure("rate_limit", rpm=3), budget="a"),
        command(Measure("rate_limit", tpm=100), scope=("feature", "chat")),
    )
    went = [book.check(**CALL, tokens=40, now=NOON).allowed for _ in range(5)]
    assert went == [True, True, True, False, False]
    assert book.check(team="other", feature="chat", tokens=1, now=NOON + 13 * SECOND).allowed


def test_a_call_that_began_before_it_is_spared_goes_on():
    book = book_of(command(BLOCK, spares_before=format_instant(NOON + SECOND)))
    later = NOON + 5 * SECOND
    assert book.check(**CALL, began=NOON, now=later).allowed
    assert not book.check(**CALL, began=NOON + SECOND, now=later).allowed
    assert not book.check(**CALL, now=later).allowed


LIMIT = Measure("rate_limit", rpm=1)


def test_a_renewal_is_no_news_keeps_the_bucket_and_holds_longer():
    book = book_of(command(LIMIT))
    assert book.check(**CALL, now=NOON).allowed
    assert book.apply("team:search|b", command(LIMIT, ends_in=2 * HOUR), NOON) is False
    assert not book.check(**CALL, now=NOON).allowed
    assert book.check(**CALL, now=NOON + HOUR).allowed
    assert not book.check(**CALL, now=NOON + HOUR).allowed


def test_an_earlier_renewal_that_comes_late_shortens_nothing():
    book = book_of(command(BLOCK, ends_in=HOUR))
    book.apply("team:search|b", command(BLOCK, ends_in=MINUTE))
    assert not book.check(**CALL, now=NOON + 30 * MINUTE).allowed


def test_a_limit_that_stays_while_a_measure_is_added_keeps_its_bucket():
    book = book_of(command(LIMIT))
    assert book.check(**CALL).allowed
    book.apply("team:search|b", command(LIMIT, Measure("cap_tokens", max_tokens=9), revision=2))
    assert not book.check(**CALL).allowed


def test_a_renewal_after_the_end_makes_it_hold_again():
    book = book_of(command(BLOCK, ends_in=MINUTE))
    book.prune(NOON + 2 * MINUTE)
    assert not book.holds("team:search|b", NOON + 2 * MINUTE)
    book.apply("team:search|b", command(BLOCK, ends_in=HOUR), NOON + 2 * MINUTE)
    assert book.holds("team:search|b", NOON + 2 * MINUTE)
    assert not book.check(**CALL, now=NOON + 2 * MINUTE).allowed


@pytest.mark.parametrize(
    ("on_stale", "measure", "at", "found"),
    [
        pytest.param("open", BLOCK, 14, "429 block", id="a command holds until it has to be renewed"),
        pytest.param("open", BLOCK, 15, "goes", id="open lets go when no renewal came"),
        pytest.param("keep", BLOCK, 15, "429 block", id="keep goes on without a renewal"),
        pytest.param("keep", BLOCK, 59, "429 block", id="keep holds to the last minute"),
        pytest.param("keep", BLOCK, 60, "goes", id="keep ends with the period"),
        pytest.param("keep", Measure("cap_tokens", max_tokens=9), 30, "<= 9", id="keep asks for no more than before"),
        pytest.param("close", Measure("cap_tokens", max_tokens=9), 14, "<= 9", id="close asks for a cap while renewed"),
        pytest.param(
            "close", Measure("cap_tokens", max_tokens=9), 15, "429 block", id="close refuses without a renewal"
        ),
        pytest.param("close", BLOCK, 60, "goes", id="close ends with the period"),
    ],
)
def test_what_a_gate_does_when_sluice_is_gone(on_stale, measure, at, found):
    book = book_of(command(measure, on_stale=on_stale, over_in=HOUR))
    now = NOON + at * MINUTE
    assert outcome(book.check(**CALL, now=now)) == found
    assert len(book.live(now)) == (found != "goes")
    book.prune(now)
    assert outcome(book.check(**CALL, now=now)) == found


def test_the_end_of_the_period_ends_a_command_that_was_renewed_beyond_it():
    book = book_of(command(BLOCK, ends_in=2 * HOUR, over_in=HOUR))
    assert book.check(**CALL, now=NOON + HOUR).allowed


class TestRelease:
    def test_it_opens_everything_while_it_lives(self):
        book = book_of(command(BLOCK), release(ends_in=MINUTE))
        found = book.check(**CALL)
        assert (found.allowed, found.action, found.reason) == (True, "release", "release is spent.")
        assert not book.check(**CALL, now=NOON + MINUTE).allowed

    @pytest.mark.parametrize("revision", [1, 99], ids=["same revision", "higher revision"])
    def test_no_later_command_outranks_it(self, revision):
        assert book_of(release(), command(BLOCK, revision=revision)).check(**CALL).allowed

    def test_a_null_and_an_allow_end_it(self):
        book = book_of(command(BLOCK), release())
        book.apply(RELEASE_KEY, None)
        assert not book.check(**CALL).allowed
        book.apply(RELEASE_KEY, release(2))
        book.apply(RELEASE_KEY, command(action="allow", revision=3, scope=("org", "*"), budget="release"))
        assert not book.check(**CALL).allowed

    def test_under_another_key_it_opens_nothing(self):
        book = book_of(command(BLOCK, budget="a"))
        book.apply("team:search|b", command(action="release"))
        assert not book.check(**CALL).allowed

    def test_it_answers_a_gate_that_has_read_nothing_else(self):
        book = CommandBook(clock=lambda: NOON)
        assert book.released() is None
        book.apply(RELEASE_KEY, release())
        assert book.released().allowed
        assert book.released(NOON + 15 * MINUTE) is None


def test_what_ends_leaves_nothing_behind_that_check_would_look_at():
    book = book_of(command(BLOCK), command(BLOCK, scope=("team", "*")), release())
    for key in ("team:search|b", "team:*|b", RELEASE_KEY):
        book.apply(key, None)
    assert book.check(**CALL) is ALLOWED
    assert (book._tables, book._everyone, book._entries, book.live()) == ((), (), {}, [])
