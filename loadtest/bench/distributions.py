"""How large real calls are and in which rhythm they come: quantiles of published traces, and drawing from them. Pure.

The traces themselves stay outside the project; a table of quantiles is all that is taken from them.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import NamedTuple


class Quantiles(NamedTuple):
    """A distribution as its quantile function at ``levels``; in between it is taken as straight."""

    levels: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, level: float) -> float:
        """The value below which the share ``level`` (0 to 1) lies."""
        place = min(bisect_right(self.levels, level), len(self.levels) - 1)
        left, right = self.levels[place - 1], self.levels[place]
        low, high = self.values[place - 1], self.values[place]
        return low + (high - low) * (level - left) / (right - left)

    def mean(self) -> float:
        """The mean of the distribution."""
        pieces = zip(self.levels, self.levels[1:], self.values, self.values[1:], strict=False)
        return sum((right - left) * (low + high) / 2 for left, right, low, high in pieces)


_TWENTIETHS = tuple(level / 20 for level in range(21))

#: Azure/AzurePublicDataset (CC-BY), AzureLLMInferenceTrace_code.csv of 2023: 8 819 requests of a coding service.
AZURE_CONTEXT_TOKENS = Quantiles(
    _TWENTIETHS,
    (3, 75, 147, 232, 386, 578, 770, 938, 1075, 1261, 1469, 1690, 1909, 2164, 2433, 2745, 3192, 3919, 5186, 7302, 7437),
)
AZURE_GENERATED_TOKENS = Quantiles(
    (*_TWENTIETHS[:20], 0.98, 0.99, 0.995, 0.999, 1.0),
    (6, 6, 7, 7, 8, 9, 9, 10, 11, 12, 13, 14, 16, 18, 20, 24, 29, 39, 55, 90, 172, 252, 361, 831, 1899),
)
#: The same requests: time between two of them, as a multiple of the mean. Half come within a sixth of it, in bursts.
AZURE_GAPS = Quantiles(
    (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1),
    (0, 0.001, 0.003, 0.008, 0.039, 0.164, 0.244, 0.257, 0.411, 0.7, 1.029, 2.05, 5.659, 25.983, 212.4, 557.3),
)
#: kvcache-ai/Mooncake (Apache-2.0), synthetic_requests: 3 993 long-context requests, 4.5 % above 50 000 tokens.
MOONCAKE_INPUT_TOKENS = Quantiles(
    _TWENTIETHS,
    (
        13, 22, 30, 45, 88, 277, 913, 2777, 4365, 6657, 11587,
        14730, 16289, 17642, 19407, 23175, 28430, 34305, 38615, 48835, 191378,
    ),
)  # fmt: skip
MOONCAKE_OUTPUT_TOKENS = Quantiles(
    _TWENTIETHS,
    (1, 2, 4, 6, 8, 11, 16, 22, 32, 49, 69, 92, 126, 169, 210, 250, 289, 332, 389, 519, 893),
)


class Zipf:
    """Ranks 0 to ``count - 1``; rank r is drawn in proportion to 1 / (r + 1) ** exponent."""

    def __init__(self, count: int, exponent: float) -> None:
        self._ranks = range(count)
        self._weights = list(accumulate((rank + 1) ** -exponent for rank in self._ranks))

    def draw(self, random: Random, count: int) -> Sequence[int]:
        """That many ranks."""
        return random.choices(self._ranks, cum_weights=self._weights, k=count)
