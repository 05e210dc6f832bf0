"""The bundled customer-service scenario: a seeded generator with planted, recorded faults; no stored data."""

from dpo_pipeline.samples.brand import brand_rubric
from dpo_pipeline.samples.scenario import ScenarioFacts, generate_scenario

__all__ = ["ScenarioFacts", "brand_rubric", "generate_scenario"]
