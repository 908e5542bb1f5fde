"""The doctor looks at the topics that workers read: what it believes of stages is what the composition root binds."""

from pathlib import Path

import pytest

from schemas import topics
from streams.agents.definitions import KnownDefinitions
from streams.app import Outside, create_app, group_of
from streams.core.pricing import PriceBook
from streams.core.rate_card import RateCard
from streams.core.routes_default import default_routes
from streams.doctor.groups import READS, read_by, stages_of
from streams.settings import load_settings
from streams.settings_checks import STAGES


def _settings(tmp_path: Path, stages):
    return load_settings(kafka_url="127.0.0.1:9", state_dir=tmp_path, stages=list(stages))


@pytest.mark.parametrize("stage", STAGES)
async def test_a_stage_reads_the_topics_that_its_lag_is_looked_for_on(stage, tmp_path):
    outside = Outside(None, None, None, {}, default_routes(()))
    worker = create_app(_settings(tmp_path, [stage]), outside, KnownDefinitions(), PriceBook(RateCard(), frozenset()))
    bound = {topic for agent in worker.app.agents.values() for topic in agent.channel.topics}
    assert bound == set(READS[stage])


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param(STAGES, id="all"),
        pytest.param(("meter",), id="one"),
        pytest.param(("budget", "detect", "ledger", "notify"), id="the rest"),
    ],
)
def test_a_group_is_known_by_the_name_that_its_workers_give_it(stages, tmp_path):
    assert stages_of("sluice", group_of(_settings(tmp_path, stages))) == tuple(stages)


def test_between_them_the_stages_read_every_topic():
    assert set(read_by(STAGES)) == {topic.name for topic in (*topics.INPUTS, *topics.STATEMENTS)}


def test_a_worker_that_was_given_no_routes_does_not_begin():
    """It would tell everybody by the built-in ones, and nobody would notice."""
    with pytest.raises(TypeError, match="routes"):
        Outside(None, None, None, {})
