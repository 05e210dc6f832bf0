"""The tables beside the report: what each model thinks of each held-out pair, what it replies, what it was asked."""

import pyarrow as pa

from dpo_pipeline.core.tables import MESSAGES, column, table_schema

SCORES = table_schema(
    "evaluation_scores",
    1,
    [
        column("pair_id", pa.string(), "As in preference_pairs; held-out pairs only."),
        column("cluster_id", pa.string(), "As in preference_pairs; what the bootstrap resamples."),
        column("model", pa.string(), "Which model scored: sft, dpo, ..."),
        column("chosen_log_prob", pa.float64(), "Log-prob of the chosen response, summed over its tokens, in nats."),
        column("rejected_log_prob", pa.float64(), "The same of the rejected response."),
        column("chosen_tokens", pa.int32(), "Tokens of the chosen response."),
        column("rejected_tokens", pa.int32(), "Tokens of the rejected response."),
        column("margin", pa.float64(), "beta * difference of the log-ratios to the reference; 0 for the reference."),
    ],
)

RULES = pa.list_(
    pa.struct([pa.field("rule", pa.string(), nullable=False), pa.field("met", pa.bool_(), nullable=False)])
)

REPLIES = table_schema(
    "evaluation_replies",
    1,
    [
        column("prompt_id", pa.string(), "As in preference_pairs; held-out prompts only."),
        column("cluster_id", pa.string(), "As in preference_pairs; what the bootstrap resamples."),
        column("model", pa.string(), "Which model replied."),
        column("decoding", pa.string(), "greedy or sampled."),
        column("prompt", MESSAGES, "The conversation up to and including the last user turn."),
        column("reply", pa.string(), "The generated text, without special tokens."),
        column("token_count", pa.int32(), "Tokens generated, the end token not counted."),
        column("word_count", pa.int32(), "Words of the reply."),
        column("is_finished", pa.bool_(), "Whether the model ended the reply itself rather than the limit."),
        column("is_empty", pa.bool_(), "Whether the reply holds no word."),
        column("is_refusal", pa.bool_(), "Whether the reply opens like a refusal to help."),
        column("repetition", pa.float32(), "Share of the reply's word 4-grams that repeat an earlier one of it."),
        column("key", pa.string(), "Digest of who was asked what, under which settings."),
        column("rules", RULES, "Each rule of the rubric and whether the reply meets it; empty without a rubric."),
    ],
)

ANSWERS = table_schema(
    "evaluation_answers",
    1,
    [
        column("key", pa.string(), "Digest of a model and of a prompt with two texts it was asked to score."),
        column(
            "chosen_logp", pa.float64(), "Log-prob of the first text, summed, in nats; empty: no score.", nullable=True
        ),
        column("rejected_logp", pa.float64(), "The same of the second text.", nullable=True),
        column("chosen_tokens", pa.int32(), "Tokens of the first text.", nullable=True),
        column("rejected_tokens", pa.int32(), "Tokens of the second text.", nullable=True),
    ],
)

SAMPLES = table_schema(
    "evaluation_samples",
    1,
    [
        column("prompt_id", pa.string(), "As in preference_pairs; prompts whose sampled reply ended by itself."),
        column("model", pa.string(), "Which model drew the reply."),
        column("own_log_prob", pa.float64(), "Its own log-prob of the reply, summed over its tokens, in nats."),
        column("reference_log_prob", pa.float64(), "The baseline's log-prob of the same reply."),
        column("token_count", pa.int32(), "Tokens of the reply as the model counts them."),
    ],
)

DEMONSTRATION_SCORES = table_schema(
    "evaluation_demonstrations",
    1,
    [
        column("position", pa.int32(), "Which of the held-out demonstrations, from 0, in the order of the drops."),
        column("model", pa.string(), "Which model scored."),
        column("log_prob", pa.float64(), "Log-prob of the last turn, summed over its tokens, in nats."),
        column("token_count", pa.int32(), "Tokens of the last turn as the model counts them."),
    ],
)

COMPARISONS = table_schema(
    "evaluation_comparisons",
    1,
    [
        column("judge", pa.string(), "Who judged."),
        column(
            "opponent",
            pa.string(),
            "Whose reply was shown first, the challenger's second; empty: a pair people judged, chosen first.",
            nullable=True,
        ),
        column("item_id", pa.string(), "The prompt_id, or the pair_id of a pair people judged."),
        column("verdict", pa.string(), "first, second or tie; empty: no usable answer.", nullable=True),
        column("is_flipped", pa.bool_(), "Whether the winner changed with the order shown."),
    ],
)

BENCHMARKS = table_schema(
    "evaluation_benchmarks",
    1,
    [
        column("model", pa.string(), "Which model answered."),
        column("task", pa.string(), "The harness's name of the task."),
        column("metric", pa.string(), "Its name of the figure, with the filter it was taken after, if any."),
        column("item", pa.string(), "Which question of the task, by the harness's number."),
        column("item_sha256", pa.string(), "The harness's digest of the question."),
        column(
            "value",
            pa.float64(),
            "What the answer counts; empty: no number, as in figures over a corpus.",
            nullable=True,
        ),
        column("target", pa.string(), "What was expected, as text, cut at 2,000 characters."),
        column(
            "response", pa.string(), "What the model answered, as JSON: texts, or log-probs of the choices; cut too."
        ),
    ],
)
