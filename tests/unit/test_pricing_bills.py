"""Bill lines: the category of their money, and whether a line adds to the ledger or reconciles with it (rule 7)."""

from decimal import Decimal
from typing import Any

import pytest

from schemas.events import BillingRecord
from streams.core.pricing import bill_category, source_of_record

METERED = frozenset({"openai", "anthropic", "azure", "google", "aws", "mistral"})
AI = {"service_category": "AI and Machine Learning"}
GENERATIVE = AI | {"service_subcategory": "Generative AI"}


def line(provider: str = "AWS", **fields: Any) -> BillingRecord:
    given: dict[str, Any] = {
        "billing_account_id": "a",
        "charge_period_start": "2026-11-21T00:00:00Z",
        "charge_period_end": "2026-11-22T00:00:00Z",
        "billed_cost": Decimal(1),
        "billing_currency": "USD",
        "service_provider_name": provider,
    }
    return BillingRecord(**(given | fields))


@pytest.mark.parametrize(
    ("provider", "fields", "category"),
    [
        pytest.param("AWS", GENERATIVE | {"service_name": "Amazon Bedrock"}, "llm", id="Bedrock"),
        pytest.param(
            "OpenAI", {"origin": "openai_costs", "charge_description": "gpt-4o, input"}, "llm", id="OpenAI costs"
        ),
        pytest.param(
            "OpenAI",
            {"origin": "openai_costs", "charge_description": "vector store storage"},
            "vector",
            id="vector store",
        ),
        pytest.param(
            "OpenAI", {"origin": "openai_costs", "charge_description": "file storage"}, "storage", id="file storage"
        ),
        pytest.param("Anthropic", {"origin": "anthropic_cost_report"}, "llm", id="Anthropic cost report"),
        pytest.param(
            "AWS", AI | {"sku_meter": "ml.p4d.24xlarge endpoint"}, "gpu", id="a hosted endpoint on a GPU machine"
        ),
        pytest.param("AWS", AI | {"service_subcategory": "Machine Learning"}, "tooling", id="SageMaker notebooks"),
        pytest.param("AWS", {"service_category": "Compute", "sku_id": "p5.48xlarge"}, "gpu", id="a GPU machine"),
        pytest.param(
            "AWS", {"service_category": "Compute", "sku_id": "m7i.large"}, "tooling", id="a machine without GPU"
        ),
        pytest.param("Lambda", {"service_name": "GPU cloud", "sku_meter": "H100 hours"}, "gpu", id="a GPU cloud"),
        pytest.param("AWS", {"service_category": "Storage", "service_name": "Amazon S3"}, "storage", id="S3"),
        pytest.param("AWS", {"service_category": "Networking"}, "transfer", id="the network"),
        pytest.param("AWS", {"service_category": "Compute", "sku_meter": "Data Transfer Out"}, "transfer", id="egress"),
        pytest.param("Pinecone", {"service_name": "Pinecone serverless"}, "vector", id="a vector database by name"),
        pytest.param(
            "AWS", {"service_category": "Databases", "service_name": "Vector index"}, "vector", id="a vector index"
        ),
        pytest.param(
            "AWS", {"service_category": "Databases", "service_name": "Aurora"}, "storage", id="another database"
        ),
        pytest.param("LangSmith", {"service_name": "Traces"}, "tooling", id="a tool"),
        pytest.param("AWS", {}, "tooling", id="a line that says nothing"),
    ],
)
def test_a_line_belongs_to(provider: str, fields: dict[str, Any], category: str) -> None:
    assert bill_category(line(provider, **fields)) == category


@pytest.mark.parametrize(
    ("provider", "fields", "source"),
    [
        pytest.param("AWS", GENERATIVE, "meter", id="generative AI of a metered provider"),
        pytest.param("Amazon Web Services", GENERATIVE, "meter", id="under its long name"),
        pytest.param("OpenAI, LLC", {"consumed_unit": "Tokens"}, "meter", id="tokens of a metered provider"),
        pytest.param(
            "Microsoft", AI | {"service_name": "Azure OpenAI"}, "meter", id="Azure OpenAI without subcategory"
        ),
        pytest.param(
            "OpenAI", {"origin": "openai_costs", "charge_description": "gpt-4o, input"}, "meter", id="OpenAI costs"
        ),
        pytest.param("Acme AI", GENERATIVE, "bill", id="generative AI of a provider nobody meters"),
        pytest.param("AWS", AI, "bill", id="a cloud's AI that is not said to be generative"),
        pytest.param("AWS", AI | {"service_subcategory": "Bots"}, "bill", id="another AI service"),
        pytest.param("AWS", {"service_category": "Storage"}, "bill", id="storage"),
        pytest.param("OpenAI", {"charge_description": "vector store storage"}, "bill", id="a model provider's storage"),
        pytest.param("AWS", {"service_category": "Compute", "sku_id": "p5.48xlarge"}, "bill", id="a GPU machine"),
        pytest.param("AWS", GENERATIVE | {"charge_category": "Tax"}, "bill", id="a tax is nobody's usage"),
        pytest.param("AWS", GENERATIVE | {"charge_category": "Credit"}, "bill", id="a credit lowers the money"),
        pytest.param(
            "OpenAI", GENERATIVE | {"charge_category": "Adjustment"}, "meter", id="a correction of metered usage"
        ),
        pytest.param(
            "OpenAI",
            GENERATIVE | {"charge_category": "Purchase", "charge_description": "Prepaid credits"},
            "meter",
            id="prepaid credits are metered as they burn down",
        ),
        pytest.param(
            "OpenAI",
            GENERATIVE | {"charge_category": "Purchase", "charge_description": "Enterprise seats"},
            "bill",
            id="seats",
        ),
        pytest.param("AWS", GENERATIVE | {"covers_metered_usage": False}, "bill", id="the operator says: not metered"),
        pytest.param("Acme", {"covers_metered_usage": True}, "meter", id="the operator says: metered"),
        pytest.param(
            "AWS", GENERATIVE | {"covers_metered_usage": True, "charge_category": "Tax"}, "meter", id="even of a tax"
        ),
    ],
)
def test_each_dollar_has_one_source_of_record(provider: str, fields: dict[str, Any], source: str) -> None:
    assert source_of_record(line(provider, **fields), METERED) == source


def test_metered_providers_may_be_named_as_gateways_name_them() -> None:
    assert source_of_record(line("AWS", **GENERATIVE), frozenset({"aws.bedrock"})) == "meter"
    assert source_of_record(line("AWS", **GENERATIVE), frozenset()) == "bill"
