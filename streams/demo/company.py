"""The company whose day the demo plays: six teams, what they run, what that costs at its busiest, its rhythm.

Sizes are integers: nanodollars per hour, picodollars per token. Prices stand here only to size the traffic;
what the ledger says comes from Sluice's own price book, and what it is compared with from ``loadtest/oracle.py``.
"""

from typing import NamedTuple

from schemas.money import NANOS

#: Percent of the busiest hour, by hour of the local day: an office that starts at seven, with evening users.
RHYTHM = (32, 28, 25, 25, 28, 35, 50, 70, 90, 100, 100, 98, 90, 95, 100, 100, 97, 90, 78, 66, 58, 50, 43, 37)
RHYTHM_DAY = sum(RHYTHM)

GPU_MODEL = "NVIDIA L40S"
ENVIRONMENT = "prod"
GATEWAY = "gateway-eu-1"


class Model(NamedTuple):
    """A model and its prices in picodollars per token: input, cached input, output."""

    provider: str
    name: str
    input: int
    cached: int
    output: int


OPUS = Model("anthropic", "claude-opus-4-1", 15_000_000, 1_500_000, 75_000_000)
SONNET = Model("anthropic", "claude-sonnet-4-0", 3_000_000, 300_000, 15_000_000)
GPT_4O = Model("openai", "gpt-4o", 2_500_000, 1_250_000, 10_000_000)
GPT_41 = Model("openai", "gpt-4.1", 2_000_000, 500_000, 8_000_000)
MINI = Model("openai", "gpt-4o-mini", 127_500, 63_750, 510_000)
FLASH = Model("google", "gemini-2.5-flash", 300_000, 30_000, 2_500_000)


class Feature(NamedTuple):
    """One thing that a team built on a model."""

    team: str
    name: str
    model: Model
    #: At the busiest hour of the day.
    nanos_per_hour: int
    calls_per_hour: int
    #: Percent of the input tokens that are answered, and that come from the cache.
    output_percent: int = 10
    cached_percent: int = 0


class Gpu(NamedTuple):
    """A GPU that a team holds all day."""

    uuid: str
    node: str
    index: str
    team: str
    feature: str


#: What a throttle puts in the place of a model: cheaper, of the same provider.
CHEAPER = {GPT_4O.name: GPT_41.name}


def _cents(cents: int) -> int:
    return cents * NANOS // 100


#: Small teams, where a leak stays under every hourly bar; in the others a spike is money.
SMALL_TEAMS = ("support", "mobile")
TEAMS = ("search", "growth", "platform", "research", *SMALL_TEAMS)

FEATURES = (
    Feature("search", "answers", OPUS, _cents(900), 100, 10, 20),
    Feature("search", "query-rewrite", MINI, _cents(6), 60, 20),
    Feature("search", "doc-import", GPT_41, _cents(70), 50),
    Feature("growth", "copywriter", OPUS, _cents(800), 90, 25),
    Feature("growth", "personalisation", MINI, _cents(8), 60, 15),
    Feature("growth", "seo-audit", GPT_41, _cents(60), 40),
    Feature("platform", "code-review", OPUS, _cents(1000), 100, 12, 30),
    Feature("platform", "repo-agent", GPT_41, _cents(90), 60, 10, 25),
    Feature("research", "paper-reader", SONNET, _cents(50), 40, 5),
    Feature("support", "assistant", SONNET, _cents(180), 70, 15, 40),
    Feature("support", "triage", GPT_4O, _cents(80), 60, 5),
    Feature("mobile", "smart-reply", SONNET, _cents(170), 70, 10, 25),
    Feature("mobile", "voice-notes", GPT_4O, _cents(70), 50, 20),
    Feature("mobile", "summaries", FLASH, _cents(10), 40, 15),
)

GPUS = tuple(
    Gpu(f"GPU-{number:08x}-51ce-4d00-a000-00000000000{number}", "gpu-node-1", str(number - 1), "research", feature)
    for number, feature in enumerate(("training", "training", "inference", "inference"), start=1)
)

#: Where each kind of incident may strike; the seed chooses.
SPIKING = tuple(f for f in FEATURES if f.model is OPUS)
RUNNING_AWAY = tuple(f for f in FEATURES if f.model is GPT_41)
LEAKING = tuple(f for f in FEATURES if f.team in SMALL_TEAMS and f.model is GPT_4O)


def day_nanos(team: str) -> int:
    """What a team's models cost on a normal day, nanodollars."""
    return sum(f.nanos_per_hour for f in FEATURES if f.team == team) * RHYTHM_DAY // 100
