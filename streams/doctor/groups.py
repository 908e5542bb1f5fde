"""Which consumer groups a deployment works in: one for each set of stages that workers run."""

from collections.abc import Iterable

from schemas import topics
from streams.settings_checks import STAGES

#: What each stage reads.
READS = {
    "meter": tuple(topic.name for topic in topics.INPUTS),
    "budget": (topics.SPEND_SCOPES, topics.GATEWAY_COMMANDS, topics.GATEWAY_ACKS, topics.JOB_ACKS),
    "detect": (topics.SPEND_CELLS, topics.SPEND_HOURS, topics.USAGE_SIGNALS, topics.USAGE_GPU),
    "ledger": (
        topics.SPEND_CELLS, topics.GATEWAY_COMMANDS, topics.GATEWAY_ACKS, topics.BUDGETS, topics.JOB_COMMANDS,
        topics.JOB_ACKS,
    ),
    "notify": (topics.ALERTS,),
}  # fmt: skip


def stages_of(app_id: str, group: str) -> tuple[str, ...]:
    """The stages that members of a group run, as ``streams.app.group_of`` names it; none for another's group.

    >>> stages_of("sluice", "sluice"), stages_of("sluice", "sluice-meter-ledger"), stages_of("sluice", "sluice-dev")
    (('meter', 'budget', 'detect', 'ledger', 'notify'), ('meter', 'ledger'), ())
    """
    if group == app_id:
        return STAGES
    if not group.startswith(f"{app_id}-"):
        return ()
    parts = tuple(group.removeprefix(f"{app_id}-").split("-"))
    return parts if all(part in STAGES for part in parts) else ()


def read_by(stages: Iterable[str]) -> tuple[str, ...]:
    """The topics that these stages read, each once."""
    return tuple(dict.fromkeys(topic for stage in stages for topic in READS[stage]))
