"""What producers say: one LLM call, one GPU over one window, one bill line.

Field names follow OpenTelemetry GenAI for calls and FOCUS 1.4 (in snake_case) for bills; where LiteLLM or FOCUS
call a field otherwise, ``docs/formats.md`` has the mapping. The CloudEvents attributes (id, source, time, subject)
travel in the envelope (``schemas.cloudevents``), not here. Unknown fields are ignored; a new field has a default.
Prompts, answers, e-mail and IP addresses have no field on purpose.
"""

from decimal import Decimal
from typing import Literal

import msgspec

USAGE_TYPE = "ai.usage.recorded.v1"
GPU_TYPE = "ai.gpu.sampled.v1"
BILLING_TYPE = "ai.billing.recorded.v1"

#: The team of money that names none; also the record key of such events, so that a repeat meets its original.
UNATTRIBUTED = "__unattributed__"

RequestType = Literal["interactive", "batch", "background"]
Origin = Literal["focus", "openai_costs", "anthropic_cost_report", "stripe", "aws_cur", "webhook"]


class UsageEvent(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True, gc=False):
    """One LLM call as the gateway saw it. Token counts are >= 0; ``input_tokens`` includes the cached ones."""

    provider: str
    request_model: str = ""
    response_model: str = ""
    operation: str = "chat"
    input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_output_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    service_tier: str = ""
    #: What the gateway believes the call cost: kept beside our price, never added to it.
    reported_cost: str | None = None
    currency: str = "USD"
    status: Literal["success", "failure"] = "success"
    error_type: str = ""
    cache_hit: bool = False
    stream: bool = False
    duration_ms: int | None = None
    org_id: str = ""
    cost_center: str = ""
    team_id: str = ""
    project_id: str = ""
    feature: str = ""
    environment: str = ""
    request_type: RequestType = "interactive"
    user_tier: str = ""
    key_id: str = ""
    user_id: str = ""
    end_user_id: str = ""
    tags: dict[str, str] = {}
    trace_id: str = ""
    session_id: str = ""
    agent: str = ""
    #: An agent's task, an experiment, and a training run: budgets can be theirs.
    task_id: str = ""
    experiment_id: str = ""
    run_id: str = ""

    @property
    def model(self) -> str:
        """The model that is billed: the one that answered, else the one that was asked."""
        return self.response_model or self.request_model


class GpuSample(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """One GPU (or one pod's share of it) over one window."""

    gpu_uuid: str
    window_start: str
    window_end: str
    #: Seconds of the window in which the GPU was there and allocated; FOCUS ConsumedQuantity in GPU-seconds.
    allocated_seconds: Decimal
    node: str = ""
    gpu_index: str = ""
    model: str = ""
    mig_profile: str = ""
    mig_id: str = ""
    namespace: str = ""
    pod: str = ""
    container: str = ""
    hpc_job: str = ""
    #: What the pod is a replica of, where the exporter says so; else it is read off the pod's name.
    deployment: str = ""
    #: The node pool or queue that the GPU belongs to; empty: its model stands for it.
    pool: str = ""
    #: How many pods share the GPU by time-slicing; each pays one part.
    shared_by: int = 1
    #: 0..1; None where the exporter gave a blank: missing, and not idle.
    util_ratio: float | None = None
    memory_used_bytes: int | None = None
    energy_joules: float | None = None
    power_watts: float | None = None
    exporter: Literal["dcgm", "nvidia_smi"] = "dcgm"
    scrape_ok: bool = True
    org_id: str = ""
    cost_center: str = ""
    team_id: str = ""
    project_id: str = ""
    feature: str = ""
    environment: str = ""
    experiment_id: str = ""
    run_id: str = ""


class BillingRecord(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """One line of an invoice or of a provider's cost report. Credits and corrections are negative."""

    billing_account_id: str
    charge_period_start: str
    charge_period_end: str
    billed_cost: Decimal
    billing_currency: str
    service_provider_name: str
    effective_cost: Decimal | None = None
    list_cost: Decimal | None = None
    contracted_cost: Decimal | None = None
    billing_period_start: str = ""
    billing_period_end: str = ""
    charge_category: Literal["Usage", "Purchase", "Tax", "Credit", "Adjustment"] = "Usage"
    charge_class: str = ""
    charge_description: str = ""
    host_provider_name: str = ""
    invoice_issuer_name: str = ""
    service_name: str = ""
    service_category: str = ""
    service_subcategory: str = ""
    consumed_quantity: Decimal | None = None
    consumed_unit: str = ""
    pricing_quantity: Decimal | None = None
    pricing_unit: str = ""
    sub_account_id: str = ""
    sub_account_name: str = ""
    sku_id: str = ""
    sku_meter: str = ""
    sku_price_id: str = ""
    region_id: str = ""
    resource_id: str = ""
    resource_type: str = ""
    tags: dict[str, str] = {}
    invoice_id: str = ""
    invoice_detail_id: str = ""
    origin: Origin = "webhook"
    #: True where the operator knows that the line bills what Sluice meters; None lets the policy decide (rule 7).
    covers_metered_usage: bool | None = None
    org_id: str = ""
    cost_center: str = ""
    team_id: str = ""
    project_id: str = ""
    feature: str = ""
    environment: str = ""
