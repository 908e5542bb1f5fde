"""All detectors by name. One detector a file; a new one is added here and meets the conformance suite."""

from collections.abc import Mapping
from types import MappingProxyType

from detectors.base import Detector
from detectors.gpu_utilisation import GpuUtilisation
from detectors.hourly_spend import HourlySpend
from detectors.multivariate import Multivariate
from detectors.regime_change import RegimeChange
from detectors.runaway_loop import RunawayLoop
from detectors.runaway_request import RunawayRequest
from detectors.seasonal_spend import SeasonalSpend
from detectors.spend_spike import SpendSpike

_ALL = (
    HourlySpend, RunawayRequest, RunawayLoop, RegimeChange, GpuUtilisation, SeasonalSpend, SpendSpike, Multivariate,
)  # fmt: skip
DETECTORS: Mapping[str, type[Detector]] = MappingProxyType({detector.name: detector for detector in _ALL})


def create(name: str) -> Detector:
    """A detector with its default parameters, knowing nothing yet.

    Raises:
        LookupError: no detector has this name.

    >>> create("hourly_spend").name
    'hourly_spend'
    """
    if name not in DETECTORS:
        raise LookupError(f"no detector is called {name!r}; there are: {', '.join(sorted(DETECTORS))}")
    return DETECTORS[name]()
