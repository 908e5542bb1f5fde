"""The routes as the settings have them: the file that ``routes_file`` names, or the built-in tree."""

from streams.core.routes import Routes
from streams.core.routes_default import default_routes
from streams.core.routes_file import load_routes, unreachable
from streams.settings import Settings, SettingsError


def configured(settings: Settings) -> tuple[str, ...]:
    """Those of ``pagerduty``, ``slack`` and ``email`` that the settings say how to reach."""
    slack = settings.slack_webhook_url is not None or getattr(settings, "slack_bot_token", None) is not None
    found = {
        "pagerduty": settings.pagerduty_routing_key is not None,
        "slack": slack,
        "email": settings.smtp_host is not None,
    }
    return tuple(name for name, is_there in found.items() if is_there)


def read_routes(settings: Settings) -> Routes:
    """The routes in force.

    Raises:
        SettingsError: with every error in the file, and every receiver that it names and that reaches nobody.
    """
    reach = configured(settings)
    if settings.routes_file is None:
        return default_routes(reach)
    try:
        routes = load_routes(settings.routes_file.read_text(encoding="utf-8"), reach)
    except (ValueError, OSError) as error:
        raise SettingsError([f"{settings.routes_file}: {line}" for line in str(error).splitlines()]) from error
    if problems := unreachable(routes, reach):
        raise SettingsError([f"{settings.routes_file}: {line}" for line in problems])
    return routes
