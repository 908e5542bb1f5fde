"""``routes.yaml``: which alerts go to whom, grouped how, and what keeps them quiet."""

from streams.core.marked_yaml import DocumentError
from streams.core.routes import Routes


class RoutesFileError(DocumentError):
    """The routes cannot be used; ``problems`` has one line for every error."""


def load_routes(text: str) -> Routes:
    """Read a file.

    Raises:
        RoutesFileError: with every error found, one line each, each naming its line.
    """
    raise NotImplementedError
