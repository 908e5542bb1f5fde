"""What was aimed at, and whether it was reached: each in words, with the figure that says so."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from streams.evaluation.trials import SHIPPED

HOURLY, TEN_MINUTE = "features, hourly", "features, ten-minute"


class Target(NamedTuple):
    """One aim. ``is_met`` is None where nothing was measured."""

    words: str
    figure: str
    is_met: bool | None


def targets(result: dict[str, Any]) -> list[Target]:
    """Every target of spend, GPUs and requests against this result."""
    return [*_spend(result.get("spend", {})), *_gpu(result.get("gpu", {})), *_requests(result.get("requests", {}))]


def _spend(spend: dict[str, Any]) -> Iterator[Target]:
    hourly = spend.get(HOURLY, {}).get("contenders", {})
    ten = spend.get(TEN_MINUTE, {}).get("contenders", {})
    own = hourly.get(SHIPPED, {})
    shipped = own.get("as_shipped")
    for budget, recall in (("0.2", 0.55), ("0.5", 0.68)):
        words = f"at most {budget} pages per series-week at a mean recall of {recall}"
        yield _at(f"as shipped: {words}", shipped, budget, recall)
        yield _at(f"bar of the other half: {words}", _dig(own, "held_out", budget), budget, recall)
    for kind, least in (("storm", 0.97), ("x10/1h", 0.92), ("x5/3h", 0.80)):
        recall = _dig(shipped, "kinds", kind, "recall")
        yield _least(f"as shipped: recall of {kind} at least {least:.2f}", recall, least)
    yield _least("as shipped: precision with one x10 incident per series-week", _dig(shipped, "precision"), 0.80)
    paced = _dig(ten, SHIPPED, "as_shipped", "kinds")
    for kind, which, most in (
        ("x10/1h", "median", 20), ("x10/1h", "p90", 40), ("x5/3h", "median", 45),
    ):  # fmt: skip
        yield _most(f"{kind} found within {most} minutes ({which})", _dig(paced, kind, f"minutes_{which}"), most)
    pages, rule = _dig(shipped, "pages_per_series_week"), "rule: expectation"
    literal = _dig(hourly, rule, "as_shipped", "pages_per_series_week")
    ratio = None if pages is None or literal is None else literal / pages if pages else float("inf")
    yield _least("at least 8 times fewer pages than the fixed rule", ratio, 8)
    yield _better_than_all(hourly)


def _at(words: str, found: dict[str, Any] | None, budget: str, recall: float) -> Target:
    pages, mean = _dig(found, "pages_per_series_week"), _dig(found, "recall_mean")
    if pages is None or mean is None:
        return Target(words, "not measured", None)
    return Target(words, f"{pages:.2f} pages, recall {mean:.2f}", pages <= float(budget) and mean >= recall)


def _better_than_all(contenders: dict[str, Any]) -> Target:
    words, losses = "fewer pages than every baseline at equal recall", []
    own = _dig(contenders, SHIPPED, "pages_at_recall") or {}
    if not own or len(contenders) < 2:
        return Target(words, "not measured", None)
    for recall, pages in own.items():
        for name, rival in contenders.items():
            other = rival["pages_at_recall"].get(recall)
            if name != SHIPPED and other is not None and (pages is None or other <= pages):
                losses.append(f"{name} at {recall}")
    return Target(words, f"not than {', '.join(losses)}" if losses else "than all", not losses)


def _gpu(gpu: dict[str, Any]) -> Iterator[Target]:
    own = gpu.get(SHIPPED)
    yield _least("strict idles found within 62 minutes", _dig(own, "found_within_62_min"), 1.0)
    yield _most("pages across a gap", _dig(own, "pages_across_a_gap"), 0)
    yield _most("owner pages per day per 10 pods", _dig(own, "owner_pages_per_day_per_10_pods"), 0.1)


def _requests(requests: dict[str, Any]) -> Iterator[Target]:
    own = requests.get(SHIPPED)
    yield _most("runaway pages per hour on the long-context trace", _dig(own, "pages_per_hour"), 1.0)
    for name in ("short_context", "long_context"):
        told = _dig(own, f"{name}_told_with_their_event")
        yield _least(f"injected runaways told with their own event ({name.replace('_', ' ')})", told, 1.0)


def _least(words: str, figure: float | None, least: float) -> Target:
    return Target(words, _shown(figure), None if figure is None else figure >= least)


def _most(words: str, figure: float | None, most: float) -> Target:
    return Target(f"{words}, at most {most:g}", _shown(figure), None if figure is None else figure <= most)


def _shown(figure: float | None) -> str:
    return "not measured" if figure is None else f"{figure:.3g}"


def _dig(found: Any, *names: str) -> Any:
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found
