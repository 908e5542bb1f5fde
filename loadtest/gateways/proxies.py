"""Real LiteLLM proxies in an environment of their own, kept off the network, each with the plugin."""

import os
import secrets
from pathlib import Path

from loadtest.bench.machine import ROOT
from streams.embedded.process import ChildProcess, EmbeddedError, free_port, http_status

PROGRAM = ROOT / ".venv-gateway" / "bin" / "litellm"
READY_DEADLINE_S = 120.0
CONFIG = """\
model_list:
{models}
litellm_settings:
  callbacks: [loadtest.gateways.rig_plugin.sluice]
  num_retries: 0
  request_timeout: 60
  cache: true
  cache_params: {{type: local, mode: default_off}}
router_settings:
  num_retries: 0
  disable_cooldowns: true
general_settings:
  custom_auth: loadtest.gateways.rig_plugin.authenticate
"""
MODEL = """\
  - model_name: {name}
    litellm_params: {{model: openai/{name}, api_base: "{upstream}", api_key: sk-none}}
"""
#: LiteLLM asks the network for these unless it is told not to.
LOCAL = (
    "LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "LITELLM_LOCAL_BLOG_POSTS",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS", "LITELLM_LOCAL_POLICY_TEMPLATES",
)  # fmt: skip


class Proxy:
    """One proxy with one worker process; ``url`` answers once ``ready`` returned."""

    def __init__(self, name: str, folder: Path, upstream: str, kafka: str, **settings: str) -> None:
        if not PROGRAM.exists():
            raise EmbeddedError(f"{PROGRAM} is missing: run `make e2e-gateway`, which makes its environment")
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = folder / f"{name}.yaml"
        models = "".join(MODEL.format(name=model, upstream=upstream) for model in ("gpt-4o", "gpt-4o-mini"))
        config.write_text(CONFIG.format(models=models.rstrip("\n")))
        plugin = {"instance": name, "kafka": kafka, "spill_dir": str(folder / f"{name}-spill")} | settings
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": "*",
            "LITELLM_MASTER_KEY": f"sk-{secrets.token_hex(32)}",
            **dict.fromkeys(LOCAL, "True"),
            **{f"SLUICEGATE_{key.upper()}": value for key, value in plugin.items()},
        }
        command = (str(PROGRAM), "--config", str(config), "--host", "127.0.0.1", "--port", str(self.port))
        self.child = ChildProcess(name, command, folder / f"{name}.log", env=environment)

    def start(self) -> None:
        """Start it; ``ready`` waits."""
        self.child.start()

    async def ready(self) -> None:
        """Wait until it answers; raises EmbeddedError with the end of its log."""

        async def answers() -> bool:
            return await http_status(self.port, "/health/liveliness") == 200

        await self.child.ready(answers, READY_DEADLINE_S)
