"""The reference table: what the frozen reference thinks of each pair."""

import pyarrow as pa

from dpo_pipeline.core.tables import column, table_schema

REFERENCE_LOGPROBS = table_schema(
    "reference_logprobs",
    1,
    [
        column("pair_id", pa.string(), "As in preference_pairs."),
        column("split", pa.string(), "As in preference_pairs."),
        column(
            "key",
            pa.string(),
            "blake2b-128 of the reference's weights, the number format and the tokens of prompt, chosen and rejected; "
            "hex. Equal keys mean equal rows, whatever the run.",
        ),
        column("chosen_logp", pa.float64(), "Log-prob of the chosen response, summed over its tokens, in nats."),
        column("rejected_logp", pa.float64(), "Log-prob of the rejected response, summed over its tokens, in nats."),
        column("chosen_tokens", pa.int32(), "Tokens of the chosen response, end of turn included."),
        column("rejected_tokens", pa.int32(), "Tokens of the rejected response, end of turn included."),
    ],
)
