"""The rate card: read digit by digit, every mistake named with its line, all at once."""

from decimal import Decimal
from pathlib import Path

import pytest

from streams.core.rate_card import ModelLine, RateCard, RateCardError, load_rate_card

EXAMPLE = Path(__file__).parents[2] / "examples" / "rate-card.yaml"


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "models:\ngpus:\nfx:\n", "{}"])
def test_a_card_without_lines_leaves_all_to_the_catalogue(text: str) -> None:
    assert load_rate_card(text) == RateCard()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        pytest.param("0.1", "0.1", id="a YAML float"),
        pytest.param("0.000000000000000001", "0.000000000000000001", id="eighteen decimals"),
        pytest.param("'2.50'", "2.50", id="a text"),
        pytest.param("3", "3", id="a whole number"),
        pytest.param("010", "10", id="no octal surprise"),
        pytest.param("123456789.123456789", "123456789.123456789", id="more digits than a float has"),
    ],
)
def test_an_amount_keeps_its_digits(written: str, read: str) -> None:
    card = load_rate_card(f"models: [{{provider: a, model: b, input: {written}}}]")
    assert card.models[0].input == Decimal(read)


def line(**fields: str) -> str:
    given = {"provider": "openai", "model": "gpt-4o", "input": "1"} | fields
    return "models:\n  - " + "\n    ".join(f"{name}: {value}" for name, value in given.items() if value) + "\n"


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        pytest.param(line(input="cheap"), 4, "'cheap' is not a plain decimal", id="a price in words"),
        pytest.param(line(input="1_000"), 4, "plain decimal", id="a separator"),
        pytest.param(line(input="1e3"), 4, "plain decimal", id="an exponent"),
        pytest.param(line(input=".nan"), 4, "plain decimal", id="not a number"),
        pytest.param(line(input="-1"), 4, "must not be negative", id="a negative price"),
        pytest.param(line(input=""), 2, "give input", id="a line without any price"),
        pytest.param(line(discount_percent="5"), 2, "not both", id="discount and rates"),
        pytest.param(line(input="", discount_percent="101"), 4, "less than or equal to 100", id="discount above 100"),
        pytest.param(line(reasoning="2"), 2, "give output as well", id="reasoning without output"),
        pytest.param(line(**{"from": "soon"}), 5, "date", id="no date"),
        pytest.param(line(imput="2"), 5, "unknown key", id="a misspelt key"),
        pytest.param(line(provider=""), 2, "is missing", id="no provider"),
        pytest.param(line() + line().removeprefix("models:\n"), 5, "a second line for", id="the same line twice"),
        pytest.param(
            "models:\n  - provider: a\n    provider: b\n    model: c\n    input: 1", 3, "twice", id="a key twice"
        ),
        pytest.param("fx: [{currency: USD, usd: 1}]", 1, "USD needs no rate", id="a rate for the dollar"),
        pytest.param("fx: [{currency: EUR, usd: 0}]", 1, "above zero", id="a worthless currency"),
        pytest.param("gpus: [{model: H100}]", 1, "usd_per_hour: is missing", id="a GPU without a price"),
        pytest.param("models: 3", 1, "valid tuple", id="no list"),
        pytest.param("- 1", 1, "document", id="a list for a card"),
        pytest.param("models: [", 1, "not YAML", id="not YAML"),
        pytest.param("a: &a [*a]", 1, "beyond reason", id="an anchor within itself"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, at: int, words: str) -> None:
    with pytest.raises(RateCardError) as caught:
        load_rate_card(text)
    (problem,) = caught.value.problems
    assert problem.startswith(f"line {at}:")
    assert words in problem


def test_a_document_that_repeats_itself_without_end_is_refused_soon() -> None:
    layers = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10))
    with pytest.raises(RateCardError, match="beyond reason"):
        load_rate_card(f"l0: &l0 [1]\n{layers}")


def test_all_mistakes_are_named_at_once_in_the_order_of_the_text() -> None:
    text = line(input="-1", output="x") + line(model="gpt-5", imput="2").removeprefix("models:\n") + "fx:\n  - usd: 1\n"
    with pytest.raises(RateCardError) as caught:
        load_rate_card(text)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["line 4", "line 5", "line 9", "line 11"]
    assert str(caught.value).splitlines() == caught.value.problems


@pytest.mark.parametrize(
    ("pattern", "provider", "tier", "matches"),
    [
        pytest.param("gpt-4o", "openai", None, True, id="the very model"),
        pytest.param("GPT-4O", "OpenAI", None, True, id="case does not matter"),
        pytest.param("gpt-4*", "openai", None, True, id="a pattern"),
        pytest.param("gpt-4", "openai", None, False, id="a beginning is no pattern"),
        pytest.param("*", "*", None, True, id="anything"),
        pytest.param("*", "azure", None, False, id="another provider"),
        pytest.param("*", "openai", "flex", True, id="its tier"),
        pytest.param("*", "openai", "batch", False, id="another tier"),
        pytest.param("*", "openai", "default", False, id="the ordinary tier only"),
    ],
)
def test_a_line_matches(pattern: str, provider: str, tier: str | None, matches: bool) -> None:
    made = ModelLine(provider=provider, model=pattern, service_tier=tier, input=Decimal(1))
    assert made.matches("openai", "gpt-4o", "flex") is matches


def test_a_float_in_code_is_refused_because_its_digits_are_gone() -> None:
    with pytest.raises(ValueError, match="float"):
        ModelLine(provider="a", model="b", input=0.1)  # type: ignore[arg-type]


def test_the_example_is_valid_and_shows_every_section() -> None:
    card = load_rate_card(EXAMPLE.read_text())
    assert card.models
    assert card.gpus
    assert card.fx
