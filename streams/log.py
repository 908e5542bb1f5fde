"""Logging of our processes: quiet in normal operation, one line a message, text or JSON."""

import json
import logging
import sys
from typing import Literal

#: They report every connection and rebalance; what an operator needs of that is in metrics and in our own lines.
_CHATTY = ("aiokafka", "faust", "mode", "streams.transport", "asyncio", "httpx", "httpcore", "pagerduty", "uvicorn")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up(log_format: Literal["text", "json"] = "text", level: str = "INFO") -> None:
    """Log to standard error: our own lines from ``level`` up, those of libraries from WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_Json() if log_format == "json" else text)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
