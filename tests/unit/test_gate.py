"""What the command book answers for a call, after commands came, were superseded, were lifted or ran out."""

import time

import pytest

from gateway.commands import ALLOWED, CommandBook
from schemas.commands import Target, ThrottleCommand
from schemas.instants import HOUR, InstantError, format_instant

NOON = 1_800_000_000_000_000
SECOND = 1_000_000


def command(action="block", revision=1, **fields):
    budget = fields.pop("budget", "search-daily")
    scope = fields.pop("scope", ("team", "search"))
    return ThrottleCommand(
        command_id=f"{scope[0]}:{scope[1]}|{budget}#{revision}",
        budget_id=budget,
        target=Target(*scope),
        action=action,
        revision=revision,
        reason=fields.pop("reason", f"Budget {budget} is spent."),
        issued_at=format_instant(NOON),
        effective_at=format_instant(NOON + fields.pop("starts_in", 0)),
        expires_at=format_instant(NOON + fields.pop("ends_in", HOUR)),
        **fields,
    )


def book_of(*commands):
    book = CommandBook(clock=lambda: NOON)
    for one in commands:
        book.apply(one.key(), one)
    return book


SEARCH = {"team": "search", "feature": "chat", "model": "gpt-4o", "org": "acme", "key": "k1", "user": "u1"}


@pytest.mark.parametrize(
    ("commands", "call", "allowed"),
    [
        pytest.param([], SEARCH, True, id="without commands every call goes"),
        pytest.param([command()], SEARCH, False, id="a blocked team is refused"),
        pytest.param([command()], {"team": "ads"}, True, id="another team goes on"),
        pytest.param([command()], {}, True, id="a call without a team goes on"),
        pytest.param([command(scope=("feature", "chat"))], SEARCH, False, id="a blocked feature is refused"),
        pytest.param([command(scope=("model", "gpt-4o"))], SEARCH, False, id="a blocked model is refused"),
        pytest.param([command(scope=("org", "acme"))], SEARCH, False, id="a blocked organisation is refused"),
        pytest.param([command(scope=("key", "k1"))], SEARCH, False, id="a blocked key is refused"),
        pytest.param([command(scope=("user", "u1"))], SEARCH, False, id="a blocked user is refused"),
        pytest.param(
            [command(scope=("feature", "search"))],
            SEARCH,
            True,
            id="a feature named like a team is not the team",
        ),
        pytest.param([command(dry_run=True)], SEARCH, True, id="a dry run refuses nothing"),
        pytest.param([command(), command("allow", 2)], SEARCH, True, id="allow with a higher revision lifts"),
        pytest.param([command("allow", 2), command()], SEARCH, True, id="a lower revision is ignored"),
        pytest.param(
            [command("allow", 2, budget="a"), command(revision=1, budget="b")],
            SEARCH,
            False,
            id="a revision counts for its own budget only",
        ),
        pytest.param(
            [command(budget="a"), command("allow", 9, budget="b")],
            SEARCH,
            False,
            id="another budget with room lifts nothing",
        ),
        pytest.param([command(ends_in=0)], SEARCH, True, id="a command that ends now is void"),
        pytest.param([command(ends_in=1)], SEARCH, False, id="a command holds until it ends"),
        pytest.param([command(starts_in=1)], SEARCH, True, id="a command holds only when it begins"),
        pytest.param([command(), command(dry_run=True, revision=2)], SEARCH, True, id="a dry run supersedes"),
        pytest.param(
            [command(ends_in=-1, revision=5), command(revision=4)],
            SEARCH,
            True,
            id="an expired command still supersedes older ones",
        ),
    ],
)
def test_the_gate_decides(commands, call, allowed):
    assert book_of(*commands).check(**call).allowed is allowed


def test_a_refusal_tells_the_caller_why_and_when_to_come_back():
    refused = book_of(command(reason="Spent.", retry_after_s=120, http_status=402)).check(**SEARCH)
    assert (refused.reason, refused.retry_after_s, refused.http_status) == ("Spent.", 120, 402)
    assert refused.command is not None
    assert refused.command.budget_id == "search-daily"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["block first", "block second"])
def test_of_two_budgets_on_one_scope_the_strictest_wins_and_the_other_takes_over_when_it_ends(order):
    both = [
        command(budget="a", ends_in=60 * SECOND),
        command("downgrade", budget="b", model_fallback="small"),
    ]
    book = book_of(*(both[place] for place in order))
    assert not book.check(**SEARCH, now=NOON).allowed
    after = book.check(**SEARCH, now=NOON + 60 * SECOND)
    assert (after.allowed, after.model_fallback) == (True, "small")


def test_a_null_value_lifts_and_says_so_once():
    book = book_of(command())
    assert book.apply("team:search|search-daily", None) is True
    assert book.apply("team:search|search-daily", None) is False
    assert book.check(**SEARCH) is ALLOWED


def test_the_same_command_again_is_no_news_and_a_pruned_one_neither():
    book = book_of(command(ends_in=SECOND))
    assert book.apply("team:search|search-daily", command(ends_in=SECOND)) is False
    assert book.prune(NOON + SECOND) == 1
    assert book.apply("team:search|search-daily", command(ends_in=SECOND)) is False


def test_refusals_are_counted_for_the_command_that_refused():
    book = book_of(command(), command(scope=("feature", "chat"), budget="f", ends_in=2 * HOUR))
    for _ in range(3):
        book.check(team="search")
    book.check(**SEARCH)
    book.check(team="ads")
    counts = {live.key: live.rejected_count for live in book.live()}
    assert counts == {"team:search|search-daily": 3, "feature:chat|f": 1}


def test_a_rate_limit_lets_a_minute_s_worth_through_and_refills():
    book = book_of(command("rate_limit", rpm_limit=6))
    went = [book.check(**SEARCH, now=NOON).allowed for _ in range(8)]
    assert went == [True] * 6 + [False] * 2
    refused = book.check(**SEARCH, now=NOON)
    assert refused.retry_after_s == 10
    assert book.check(**SEARCH, now=NOON + 10 * SECOND).allowed
    assert not book.check(**SEARCH, now=NOON + 10 * SECOND).allowed


def test_a_rate_limit_that_is_stated_again_keeps_its_count():
    book = book_of(command("rate_limit", rpm_limit=1))
    assert book.check(**SEARCH).allowed
    book.apply("team:search|search-daily", command("rate_limit", rpm_limit=1))
    assert not book.check(**SEARCH).allowed


def test_a_rate_limit_of_nothing_refuses_everything():
    assert not book_of(command("rate_limit", rpm_limit=0)).check(**SEARCH).allowed


def test_a_refusal_by_one_limit_costs_nothing_in_the_other():
    book = book_of(
        command("rate_limit", rpm_limit=100),
        command("rate_limit", rpm_limit=1, scope=("feature", "chat"), budget="f"),
    )
    for _ in range(50):
        book.check(**SEARCH, now=NOON)
    assert sum(book.check(team="search", now=NOON).allowed for _ in range(100)) == 99


def test_tokens_are_limited_by_the_minute():
    book = book_of(command("rate_limit", tpm_limit=1_000))
    assert book.check(**SEARCH, tokens=3_000, now=NOON).allowed
    assert not book.check(**SEARCH, tokens=1, now=NOON + 119 * SECOND).allowed
    assert book.check(**SEARCH, tokens=1, now=NOON + 121 * SECOND).allowed


def test_a_command_without_a_readable_end_changes_nothing():
    book = book_of(command())
    broken = command("allow", 2)
    broken.expires_at = "tomorrow"
    with pytest.raises(InstantError):
        book.apply(broken.key(), broken)
    assert not book.check(**SEARCH).allowed


def test_lifted_commands_leave_nothing_behind_that_check_would_look_at():
    book = book_of(command())
    book.apply(command().key(), command("allow", 2))
    assert book.check(**SEARCH) is ALLOWED
    assert book._tables == ()


def test_a_check_that_nothing_applies_to_takes_less_than_two_microseconds():
    others = [command(scope=("team", f"team-{n}"), budget=f"b{n}") for n in range(1_000)]
    others += [command(scope=("feature", f"feature-{n}"), budget=f"f{n}") for n in range(1_000)]
    book = book_of(*others)
    best = min(_seconds_for_10_000(book) for _ in range(15))
    assert best / 10_000 < 2e-6


def _seconds_for_10_000(book):
    check = book.check
    began = time.perf_counter()
    for _ in range(10_000):
        check("search", "chat", "gpt-4o", "acme", "k1", "u1")
    return time.perf_counter() - began
