"""What costs money, by day: resources with their last use. Read from the ledger, for people and for ``waste``."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from schemas.instants import DAY
from streams.core import detect_words as words

#: How many days of each resource are looked at.
DAYS_KEPT = 35
#: Names of what tests and builds the code, as an environment, a project or a feature is called, or a part of it.
CI_NAMES = frozenset({"ci", "cicd", "build", "pipeline", "actions", "jenkins", "buildkite", "gitlab", "circleci"})
#: An environment that is named and is none of these is not production.
PRODUCTION = frozenset({"", "prod", "production", "live", "prd"})


class Resource(NamedTuple):
    """What tells resources apart."""

    org_id: str
    team_id: str
    project_id: str
    feature: str
    category: str
    provider: str
    model: str
    environment: str

    def key(self) -> str:
        """Its name in alerts: ``llm|openai|gpt-4o|search||chat|prod|``."""
        return "|".join(
            (self.category, self.provider, self.model, self.team_id, self.project_id, self.feature, self.environment,
             self.org_id)
        )  # fmt: skip

    @property
    def is_ci(self) -> bool:
        """Whether it is named after what tests the code.

        >>> Resource("", "a", "", "chat", "llm", "p", "m", "github-ci").is_ci
        True
        """
        names = (self.environment, self.project_id, self.feature)
        return any(part in CI_NAMES for name in names for part in name.lower().replace("_", "-").split("-"))


class Day(NamedTuple):
    """What a resource cost and did on one UTC day; ``day`` counts days since 1970."""

    day: int
    nanos: int
    requests: int = 0
    interactive: int = 0
    job_nanos: int = 0
    #: A bit for each hour of the day in which batch or background calls were made.
    job_hours: int = 0


class History(NamedTuple):
    """One resource: since when it is known, its own last use (None: it was never used), and its last days."""

    resource: Resource
    first_day: int
    last_use: int | None
    days: Sequence[Day]

    def spent(self, begin: int, end: int) -> int:
        """Nanodollars on the days from ``begin`` to before ``end``."""
        return sum(day.nanos for day in self.days if begin <= day.day < end)


def day_of(instant: int) -> int:
    """The day of an instant.

    >>> day_of(0), day_of(DAY), day_of(DAY - 1)
    (0, 1, 0)
    """
    return instant // DAY


def last_uses(histories: Iterable[History]) -> Mapping[Resource, int | None]:
    """The last use of each, microseconds since 1970.

    What is only billed (a vector store, a disk, a licence) has no use of its own in the ledger: it counts as used when
    its team's feature calls a model, or its team does where it names no feature. None: never.
    """
    known = list(histories)
    by_feature: dict[tuple[str, str, str], int] = {}
    by_team: dict[tuple[str, str], int] = {}
    for resource, _, used, _ in known:
        if used is not None and resource.category == "llm":
            feature = (resource.org_id, resource.team_id, resource.feature)
            by_feature[feature] = max(by_feature.get(feature, used), used)
            by_team[feature[:2]] = max(by_team.get(feature[:2], used), used)
    found: dict[Resource, int | None] = {}
    for resource, _, used, _ in known:
        if used is None and resource.category not in ("llm", "gpu"):
            team = (resource.org_id, resource.team_id)
            is_named = resource.feature not in ("", words.UNATTRIBUTED)
            used = by_feature.get((*team, resource.feature)) if is_named else by_team.get(team)
        found[resource] = used
    return found


def resource_words(resource: Resource) -> str:
    """The resource as the subject of a sentence.

    >>> resource_words(Resource("", "search", "", "chat", "llm", "openai", "gpt-4o", "prod"))
    'gpt-4o of openai, feature chat of team search in prod'
    """
    what = f"{words.clip(resource.model) or resource.category} of {words.clip(resource.provider) or 'nobody named'}"
    named = "" if resource.feature in ("", words.UNATTRIBUTED) else f"feature {words.clip(resource.feature)} of "
    where = f" in {words.clip(resource.environment)}" if resource.environment else ""
    return f"{what}, {named}{team_words(resource.team_id)}{where}"


def team_words(team_id: str) -> str:
    """The owner in words."""
    return "no team" if team_id in ("", words.UNATTRIBUTED) else f"team {words.clip(team_id)}"
