"""The routes without a file: pages wake on-call and are seen in Slack, what is critical goes to Slack, the rest by mail
to its owner."""

from collections.abc import Collection

from streams.core.routes import Routes


def default_routes(configured: Collection[str]) -> Routes:
    """The built-in tree over those of ``pagerduty``, ``slack`` and ``email`` that the settings configure."""
    raise NotImplementedError
