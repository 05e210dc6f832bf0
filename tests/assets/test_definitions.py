"""The code location: quick to load, free of heavy imports, and the graph people expect."""

import subprocess
import sys

from assets.definitions import build_definitions
from resources.servers import GROUPS

GRAPH = """
1_annotations
  raw_annotations [drop]
  judgments [drop] <- raw_annotations
  rejected_records [drop] <- raw_annotations
  demonstrations [drop] <- raw_annotations
2_preferences
  pair_sketches [drop] <- demonstrations, judgments
  preference_pairs <- judgments, pair_sketches
  annotator_report <- judgments, pair_sketches, preference_pairs
3_sft
  sft_checkpoint <- demonstrations, preference_pairs
4_dpo
  reference_logprobs <- preference_pairs, sft_checkpoint
  dpo_checkpoint <- preference_pairs, reference_logprobs, sft_checkpoint
5_evaluation
  evaluation_report <- demonstrations, dpo_checkpoint, preference_pairs, reference_logprobs, sft_checkpoint
  champion <- dpo_checkpoint, evaluation_report, preference_pairs
6_release
  release <- champion
7_sweeps
  sweep_point [point] <- demonstrations, preference_pairs, reference_logprobs, sft_checkpoint
  sweep_report <- sweep_point
"""
KINDS = {
    "raw_annotations": {"file"},
    "judgments": {"parquet"},
    "rejected_records": {"parquet"},
    "demonstrations": {"parquet"},
    "pair_sketches": {"parquet"},
    "preference_pairs": {"parquet"},
    "annotator_report": {"html"},
    "sft_checkpoint": {"pytorch"},
    "reference_logprobs": {"parquet", "pytorch"},
    "dpo_checkpoint": {"pytorch"},
    "evaluation_report": {"html"},
    "champion": {"json", "mlflow"},
    "release": {"huggingface", "parquet"},
    "sweep_point": {"pytorch", "json"},
    "sweep_report": {"html", "json"},
}
PARTITIONS = {"drops": " [drop]", "sweep_points": " [point]"}


def drawn(definitions):
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    lines = []
    for group in dict.fromkeys(line for line in GRAPH.split("\n") if line and not line.startswith(" ")):
        lines.append(group)
        names = [line.split()[0] for line in GRAPH.split("\n") if line.startswith("  ")]
        for name, spec in sorted(specs.items(), key=lambda item: names.index(item[0])):
            if spec.group_name == group:
                parents = ", ".join(sorted(dep.asset_key.to_user_string() for dep in spec.deps))
                drop = PARTITIONS[spec.partitions_def.name] if spec.partitions_def else ""
                lines.append(f"  {name}{drop}" + (f" <- {parents}" if parents else ""))
    return "\n" + "\n".join(lines) + "\n"


def test_the_graph_is_the_one_in_the_architecture():
    assert drawn(build_definitions()) == GRAPH


def test_the_page_that_make_ui_opens_on_shows_every_group():
    assert {spec.group_name for spec in build_definitions().resolve_all_asset_specs()} == set(GROUPS)


def test_column_lineage_names_every_column_of_both_tables():
    from assets.column_lineage import LINEAGE
    from dpo_pipeline.annotations.schemas import JUDGMENTS
    from dpo_pipeline.dpo.schemas import REFERENCE_LOGPROBS
    from dpo_pipeline.preferences.schemas import PAIRS

    schemas = {"judgments": JUDGMENTS, "preference_pairs": PAIRS, "reference_logprobs": REFERENCE_LOGPROBS}
    for asset, (source, made) in LINEAGE.items():
        assert list(made) == schemas[asset].names
        assert {name for names in made.values() for name in names} <= set(schemas[source].names)


def test_every_asset_shows_of_what_kind_its_files_are():
    assert {
        spec.key.to_user_string(): set(spec.kinds) for spec in build_definitions().resolve_all_asset_specs()
    } == KINDS


def test_every_asset_has_description_owner_and_code_version():
    for spec in build_definitions().resolve_all_asset_specs():
        assert spec.description.endswith(".")
        assert spec.owners
        assert spec.code_version


def test_the_gpu_assets_share_one_pool_and_nothing_else_does():
    definitions = build_definitions()
    pools = {asset.op.name: asset.op.pool for asset in definitions.resolve_asset_graph().assets_defs if asset.keys}
    assert {name for name, pool in pools.items() if pool == "gpu"} == {
        "sft_checkpoint",
        "reference_logprobs",
        "dpo_checkpoint",
        "evaluation_report",
        "sweep_point",
    }


def test_loading_takes_under_three_cpu_seconds_and_imports_nothing_heavy():
    code = (
        "import sys, time; import assets.definitions; "
        "heavy = {'torch', 'transformers', 'datasets', 'mlflow', 'pandas', 'pyarrow', 'peft', 'matplotlib'}; "
        "print(sorted(heavy & set(sys.modules)), time.process_time() < 3)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[] True"
