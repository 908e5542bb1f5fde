"""Bill lines: the category of their money, and whether they bill what is metered here already (rule 7)."""

import re
from typing import Literal

from schemas.events import BillingRecord
from schemas.statements import Category
from streams.core.catalogue import provider_id

_CLOUDS = frozenset({"aws", "azure", "google"})
#: Who sells little else than calls of models.
_MAKERS = frozenset(
    {"anthropic", "cohere", "deepseek", "fireworks", "groq", "mistral", "moonshotai", "openai", "openrouter"}
    | {"perplexity", "together", "voyageai", "x-ai"}
)
#: How clouds and marketplaces write the providers' names on their bills.
_PROVIDER_WORDS = (
    ("openai", re.compile(r"\bopenai\b")),
    ("anthropic", re.compile(r"\banthropic\b|\bclaude\b")),
    ("mistral", re.compile(r"\bmistral")),
    ("aws", re.compile(r"\baws\b|\bamazon\b")),
    ("azure", re.compile(r"\bazure\b|\bmicrosoft\b")),
    ("google", re.compile(r"\bgoogle\b|\bgcp\b")),
)
_TOKENS = re.compile(r"\btokens?\b|\btok\b|[a-z]-?tokens?\b|\btokencount\b")
_MODEL_SERVICES = re.compile(
    r"\bbedrock\b|azure openai|openai service|\bvertex ai\b|\bgemini\b|ai foundry|foundry models"
    r"|\bgpt-|\bclaude\b"
)
_VECTOR = re.compile(
    r"\bvectors?\b|vector ?(store|search|db|database|index)|\bpinecone\b|\bqdrant\b|\bweaviate\b|\bmilvus\b"
)
_STORAGE = re.compile(r"\bstorage\b|\bs3\b|\bgb-(hours?|months?|days?)\b|\bbackups?\b|\bsnapshots?\b")
_TRANSFER = re.compile(r"data ?transfer|\begress\b|\bbandwidth\b|\bdatatransfer|\bingress\b")
_GPU = re.compile(
    r"\bgpus?\b|\bgpu-hours?\b|\bnvidia\b"
    r"|\b(a10g?|a30|a40|a100|h100|h200|b100|b200|gb200|l4|l40s?|t4|v100|mi300x)\b"
    r"|\b(p[2-6][a-z]*|g[4-7][a-z]*)\.\d*x?large\b|\bstandard_n[cdv]\w*|\ba[23]-(high|mega|ultra)gpu"
)
_PREPAID = re.compile(r"\bcredits?\b|\bprepaid\b|\btop-?up\b|\bprepayment\b")
_NOT_MODELS = frozenset({"machine learning", "other (ai and machine learning)"})

_AI = "ai and machine learning"
_COST_REPORTS = frozenset({"openai_costs", "anthropic_cost_report"})


def bill_category(record: BillingRecord) -> Category:
    """The category of a bill line's money, from its FOCUS service category and subcategory, else its words.

    What fits nothing is ``tooling``.
    """
    category, words = record.service_category.strip().lower(), _words(record)
    if category == "storage":
        return "vector" if _VECTOR.search(words) else "storage"
    if category == "networking":
        return "transfer"
    if category == "databases":
        return "vector" if _VECTOR.search(words) else "storage"
    if category == "compute":
        return _by_words(words) if _GPU.search(words) or _TRANSFER.search(words) else "tooling"
    if category and category != _AI:
        return "tooling"
    return _ai_category(record, words)


def source_of_record(record: BillingRecord, metered_providers: frozenset[str]) -> Literal["bill", "meter"]:
    """Who is the source of record of this line's money: the bill adds it, or the meter did already (rule 7).

    ``meter``: the line bills calls that gateways report, so it reconciles and adds nothing. The operator's
    own word (``covers_metered_usage``) wins. Taxes and credits are always the bill's: no gateway meters them.
    Purchases are, unless they are prepaid usage credits, whose burn-down is what is metered.
    """
    if record.covers_metered_usage is not None:
        return "meter" if record.covers_metered_usage else "bill"
    if record.charge_category in ("Tax", "Credit"):
        return "bill"
    metered = {provider_id(name) for name in metered_providers}
    if not _sellers(record) & metered or bill_category(record) != "llm":
        return "bill"
    if record.charge_category == "Purchase":
        return "meter" if _PREPAID.search(_words(record)) else "bill"
    return "meter" if _is_generative(record) else "bill"


def _ai_category(record: BillingRecord, words: str) -> Category:
    if _VECTOR.search(words):
        return "vector"
    if _has_token_units(record) or record.service_subcategory.strip().lower() == "generative ai":
        # Even a generative service sells storage beside its tokens.
        return "llm" if _has_token_units(record) or not _STORAGE.search(words) else "storage"
    found = _by_words(words)
    if found != "tooling":
        return found
    if record.service_subcategory.strip().lower() in _NOT_MODELS:
        return "tooling"
    if record.service_category or record.origin in _COST_REPORTS or _MODEL_SERVICES.search(words):
        return "llm"
    return "llm" if _sellers(record) & _MAKERS else "tooling"


def _by_words(words: str) -> Category:
    if _VECTOR.search(words):
        return "vector"
    if _GPU.search(words):
        return "gpu"
    if _TRANSFER.search(words):
        return "transfer"
    if _STORAGE.search(words):
        return "storage"
    return "tooling"


def _is_generative(record: BillingRecord) -> bool:
    """Whether a line of the category ``llm`` bills calls of models, and not seats or other AI services."""
    if _has_token_units(record) or record.origin in _COST_REPORTS:
        return True
    subcategory = record.service_subcategory.strip().lower()
    if subcategory:
        return subcategory == "generative ai"
    # Clouds sell much under this heading; a model provider sells calls.
    return bool(_MODEL_SERVICES.search(_words(record)) or _sellers(record) - _CLOUDS)


def _has_token_units(record: BillingRecord) -> bool:
    texts = (
        record.consumed_unit,
        record.pricing_unit,
        record.sku_meter,
        record.sku_id,
        record.charge_description,
    )
    return any(_TOKENS.search(text.lower()) for text in texts)


def _sellers(record: BillingRecord) -> set[str]:
    """The providers named on the line, under the catalogue's names."""
    names = (record.service_provider_name, record.host_provider_name)
    found = {provider_id(name) for name in names if name}
    words = " ".join(names).lower()
    return found | {provider for provider, pattern in _PROVIDER_WORDS if pattern.search(words)}


def _words(record: BillingRecord) -> str:
    texts = (
        record.service_name,
        record.service_subcategory,
        record.charge_description,
        record.sku_meter,
        record.sku_id,
        record.resource_type,
        record.consumed_unit,
    )
    return " ".join(texts).lower()
