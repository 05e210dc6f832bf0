"""scores.parquet and replies.parquet: what every figure of a report can be measured again from."""

from pathlib import Path

import pyarrow as pa

from dpo_pipeline.core.tables import write_table
from dpo_pipeline.evaluation.evidence import Material
from dpo_pipeline.evaluation.generations import reply_rows, rules_met
from dpo_pipeline.evaluation.schemas import REPLIES, SCORES
from dpo_pipeline.evaluation.settings import Rubric


def write_tables(out: Path, material: Material, *, beta: float, rubric: Rubric | None) -> None:
    """Write what each model thinks of each held-out pair, and what it replied to each prompt.

    Args:
        out: The folder written into.
        material: What the models said.
        beta: Scale of the implicit reward.
        rubric: Rules whose outcome goes beside each reply.
    """
    held_out, rows = material.held_out, []
    reference = material.statements[material.baseline].scores_of(held_out.pairs)
    for name, statement in material.statements.items():
        scores = statement.scores_of(held_out.pairs)
        margins = beta * (scores.chosen - reference.chosen - scores.rejected + reference.rejected)
        rows += [
            {
                "pair_id": pair["pair_id"],
                "cluster_id": pair["cluster_id"],
                "model": name,
                "chosen_log_prob": scores.chosen[at],
                "rejected_log_prob": scores.rejected[at],
                "chosen_tokens": scores.chosen_tokens[at],
                "rejected_tokens": scores.rejected_tokens[at],
                "margin": margins[at],
            }
            for at, pair in enumerate(held_out.pairs)
        ]
    write_table(out / "scores.parquet", pa.Table.from_pylist(rows, schema=SCORES))
    replies = [
        row
        for statement in material.statements.values()
        for said in statement.replies.values()
        for row in reply_rows(said, rules_met(said, held_out, rubric=rubric), held_out)
    ]
    write_table(out / "replies.parquet", pa.Table.from_pylist(replies, schema=REPLIES))
