"""Checks of what was learned and measured: the split, the rows trained on, the figures of the evaluation report."""

from collections.abc import Iterator, Mapping
from typing import Any

from dpo_pipeline.core.errors import PipelineError
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.chain import Node, of_kind, parents_of_kind
from dpo_pipeline.lineage.checks import Check

UNSTORED = "perplexity, divergence and judges' verdicts rest on model outputs that are not stored"


def check_split(_home: Home, nodes: Mapping[str, Node]) -> Check:
    """Whether any prompt, or cluster of near-duplicate prompts, stands on both sides of the split."""
    from dpo_pipeline.preferences.leakage import prompts_on_both_sides

    tables = list(of_kind(nodes, "preference_pairs"))
    faults = [
        f"{node.artifact.path}: {len(shared)} prompts or clusters stand in train and in held-out: {shared[0]}, ..."
        for node in tables
        if (shared := prompts_on_both_sides(node.artifact.path))
    ]
    return Check("nothing held out was trained on", f"{len(tables)} pair tables, prompts and clusters", tuple(faults))


def check_near_leaks(_home: Home, nodes: Mapping[str, Node]) -> Check:
    """Whether a held-out prompt is a near duplicate of a trained one, the clusters in the table not trusted."""
    from dpo_pipeline.preferences.leakage import near_leaks

    tables, faults = list(of_kind(nodes, "preference_pairs")), []
    for node in tables:
        least = node.artifact.manifest["settings"]["preferences"]["prompt_cluster_jaccard"]
        if leaks := near_leaks(node.artifact.path, jaccard=least):
            trained, held_out, alike = leaks[0]
            faults.append(
                f"{node.artifact.path}: {len(leaks)} held-out prompts nearly equal trained ones, from {least} on: "
                f"{held_out} and {trained} are {alike:.2f} alike, ..."
            )
    return Check("no near-duplicate across the split", f"{len(tables)} pair tables, every prompt", tuple(faults))


def check_training_rows(_home: Home, nodes: Mapping[str, Node]) -> Check:
    """Whether each checkpoint's books are those of the train split alone, and held-out scores those of the rest."""
    faults: list[str] = []
    for kind, examine in (("sft_checkpoint", _sft), ("dpo_checkpoint", _dpo), ("evaluation_report", _evaluated)):
        for node in of_kind(nodes, kind):
            try:
                faults += [f"{node.artifact.path}: {fault}" for fault in examine(node)]
            except (PipelineError, OSError, KeyError, StopIteration) as error:
                faults.append(f"{node.artifact.path} cannot be compared with its inputs: {error!r}")
    count = sum(1 for node in nodes.values() if node.artifact.kind.endswith("checkpoint"))
    return Check("training read the train split only", f"{count} checkpoints, rows read again", tuple(faults))


def check_figures(_home: Home, nodes: Mapping[str, Node]) -> Check:
    """Whether the report's figures come out again from the rows stored beside it."""
    reports = list(of_kind(nodes, "evaluation_report"))
    faults: list[str] = []
    compared = 0
    for node in reports:
        try:
            for name, claimed, found in _figures(node):
                compared += 1
                if claimed != found:
                    faults.append(f"{node.artifact.path}: {name} is {claimed} in report.json, {found} from the rows")
        except (PipelineError, OSError, KeyError, TypeError, ValueError) as error:
            faults.append(f"{node.artifact.path} cannot be measured again: {error!r}")
    looked = f"{compared} groups of figures of {len(reports)} reports; {UNSTORED}"
    return Check("figures follow from the stored rows", looked, tuple(faults))


def _table(node: Node, file: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(node.artifact.path / file, columns=columns).to_pylist()


def _splits(node: Node) -> dict[str, str]:
    pairs = parents_of_kind(node, "preference_pairs")[0]
    from dpo_pipeline.preferences.golden import golden_rows

    golden = golden_rows(pairs.artifact.path, ["pair_id", "split"]).to_pylist()
    rows = [*_table(pairs, "pairs.parquet", ["pair_id", "split"]), *golden]
    return {row["pair_id"]: row["split"] for row in rows}


def _dpo(node: Node) -> Iterator[str]:
    splits, books = _splits(node), node.artifact.books
    train = sum(side == "train" for side in splits.values())
    if books is None or books.records_in != train:
        yield f"its books took in {books and books.records_in} pairs, the train split has {train}"


def _sft(node: Node) -> Iterator[str]:
    """Sort the demonstrations again with the stage's own settings; SFT may leave more out, for length, never less."""
    from dpo_pipeline.sft.demonstrations import read_demonstrations
    from dpo_pipeline.sft.settings import SftSettings

    settings, books = node.artifact.manifest["settings"], node.artifact.books
    again = read_demonstrations(
        [parent.artifact.path for parent in parents_of_kind(node, "demonstrations")],
        parents_of_kind(node, "preference_pairs")[0].artifact.path,
        settings=SftSettings.parse(settings["sft"], where="the manifest"),
        seed=settings["model"]["seed"],
    ).books
    if books is None:
        yield "it has no books"
        return
    short_by = again.kept["train"] - books.kept["train"]
    for reason in ("prompt_held_out", "prompt_near_held_out", "sft_not_permitted"):
        if books.rejected[reason] != again.rejected[reason]:
            yield f"its books left out {books.rejected[reason]} for {reason}, sorting again {again.rejected[reason]}"
    if books.records_in != again.records_in or short_by != books.rejected_count - again.rejected_count:
        yield f"its books are {books.as_dict()}, sorting the demonstrations again gives {again.as_dict()}"


def _evaluated(node: Node) -> Iterator[str]:
    splits = _splits(node)
    scored = {row["pair_id"] for row in _table(node, "scores.parquet", ["pair_id"])}
    for pair in sorted(scored):
        if splits.get(pair) != "held_out":
            yield f"pair {pair} was scored as held out; its split is {splits.get(pair)}"


def _figures(node: Node) -> Iterator[tuple[str, Any, Any]]:
    """Name, claimed and found of each group of figures that the stored rows determine."""
    import numpy as np

    from dpo_pipeline.evaluation import preferences
    from dpo_pipeline.evaluation.generations import generation_figures
    from dpo_pipeline.evaluation.headline import headline_facts
    from dpo_pipeline.evaluation.replies import Reply
    from dpo_pipeline.evaluation.report import read_report

    report, settings = read_report(node.artifact.path / "report.json"), node.artifact.manifest["settings"]
    seed, samples = settings["evaluation"]["seed"], settings["evaluation"]["bootstrap_samples"]
    rows = _table(node, "scores.parquet")
    models = list(dict.fromkeys(row["model"] for row in rows))
    scores = {name: _scores([row for row in rows if row["model"] == name]) for name in models}
    clusters = np.array([row["cluster_id"] for row in rows if row["model"] == models[0]], dtype=str)
    measure = preferences.Measure(clusters, samples, seed)
    baseline = report["baseline"]
    for name in models:
        claimed = dict(report["preferences"][name])
        moved = claimed.pop("against_reference")
        yield f"preferences of {name}", claimed, preferences.ranking_figures(scores[name], measure)
        if name != baseline:
            beta = settings["dpo"]["beta"]
            again = preferences.reference_figures(scores[name], scores[baseline], beta=beta, measure=measure)
            yield f"change of {name}", moved, again
    for name, claimed in report["comparisons"].items():
        again = preferences.compare_rankings(scores[name], scores[report["challenger"]], measure)
        yield f"comparison with {name}", claimed, again
    replies = _table(node, "replies.parquet")
    for name, ways in report["generations"].items():
        for decoding, claimed in ways.items():
            own = [row for row in replies if (row["model"], row["decoding"]) == (name, decoding)]
            said = [
                Reply(row["prompt_id"], name, decoding, row["reply"], row["token_count"], row["is_finished"])
                for row in own
            ]
            met = [{rule["rule"]: rule["met"] for rule in row["rules"]} for row in own]
            groups = [row["cluster_id"] for row in own]
            again = generation_figures(said, met, groups, seed=seed, samples=samples)
            yield f"{decoding} replies of {name}", claimed, again
    yield "headline facts", dict(node.artifact.facts), headline_facts(report)


def _scores(rows: list[dict[str, Any]]) -> Any:
    import numpy as np

    from dpo_pipeline.evaluation.preferences import PairScores

    return PairScores(
        np.array([row["chosen_log_prob"] for row in rows], dtype=np.float64),
        np.array([row["rejected_log_prob"] for row in rows], dtype=np.float64),
        np.array([row["chosen_tokens"] for row in rows], dtype=np.int64),
        np.array([row["rejected_tokens"] for row in rows], dtype=np.int64),
    )
