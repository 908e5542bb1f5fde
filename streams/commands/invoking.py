"""What every command of ``sluice`` needs: the settings as flags changed them, and running to the end in plain words."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import typer
from rich.console import Console

from streams.settings import Settings, SettingsError, load_settings

out = Console()
err = Console(stderr=True)
#: Exit codes beside 0 (done), 1 (not done, the text says why) and 2 (wrong options or settings).
CONFLICT = 3


class Flags:
    """What ``--config`` and ``--set`` gave, before any command runs."""

    values: dict[str, Any] = {}  # noqa: RUF012 - filled once, by the callback


def settings(**flags: Any) -> Settings:
    """The settings with this command's flags, or exit 2 with every problem."""
    try:
        return load_settings(**(Flags.values | flags))
    except SettingsError as error:
        fail(error.problems, "These settings cannot be used:", code=2)


def fail(lines: list[str], headline: str, code: int = 1) -> Any:
    err.print(f"[bold red]{headline}[/]")
    for line in lines:
        err.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end; what an operator can mend is said in plain words."""
    import asyncpg

    from streams.core.alert_life import LifeError
    from streams.core.approvals import LinkError, RunError
    from streams.core.defining import RequestError
    from streams.core.marked_yaml import DocumentError
    from streams.core.opening_file import OpeningFileError
    from streams.dead_letters import DeadLetterError
    from streams.embedded.process import EmbeddedError
    from streams.ports import ConflictError, DeliveryError
    from streams.sinks.postgres import MigrationError
    from streams.topic_admin import TopicError

    try:
        return asyncio.run(work)
    except SettingsError as error:
        return fail(error.problems, "These settings cannot be used:", code=2)
    except (DocumentError, OpeningFileError) as error:
        return fail(error.problems, f"Nothing was written, {len(error.problems)} problem(s):")
    except RequestError as error:
        lines = [f"{wrong.where}: {wrong.problem}" if wrong.where else wrong.problem for wrong in error.wrongs]
        return fail(lines, "Not done:")
    except ConflictError as error:
        return fail([str(error)], "Nothing was written, somebody was faster:", code=CONFLICT)
    except (RunError, LinkError, LifeError) as error:
        return fail([str(error)], "Not done:")
    except (EmbeddedError, TopicError, MigrationError, DeliveryError, DeadLetterError) as error:
        return fail(str(error).splitlines(), "Sluice cannot go on:")
    except asyncpg.PostgresError as error:
        return fail([str(error)], "PostgreSQL refuses (see database_url):")
    except OSError as error:
        return fail([str(error) or repr(error)], "Sluice cannot reach something it needs:")
