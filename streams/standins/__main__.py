"""``python -m streams.standins``: run the stand-ins until interrupted; prints the settings for them."""

import asyncio
import signal
import tempfile
from pathlib import Path

from streams.standins.runner import StandIns
from streams.standins.webhook import SECRET


async def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="sluice-standins-") as folder:
        async with StandIns(Path(folder)) as standins:
            for name, value in standins.environment().items():
                print(f"export {name}={value}")
            print("# Slack with threads, instead of SLUICE_SLACK_WEBHOOK_URL:")
            for name in sorted(set(standins.environment(bot=True)) - set(standins.environment())):
                print(f"# export {name}={standins.environment(bot=True)[name]}")
            print(f"# a webhook for routes.yaml: url {standins.webhook_url}, secret {SECRET}")
            await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
