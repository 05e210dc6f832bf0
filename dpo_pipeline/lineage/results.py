"""Checks of what was learned and measured: the split, the rows trained on, the figures of the evaluation report."""

from collections.abc import Iterator, Mapping
from typing import Any

from dpo_pipeline.core.errors import PipelineError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.lineage.chain import Node, of_kind, parents_of_kind
from dpo_pipeline.lineage.checks import Check

TAKEN_AS_SAID = "curves, notes and benchmarks' figures that are no mean over questions are taken as the report says"
BEHIND_A_REPORT = ("preference_pairs", "demonstrations", "sft_checkpoint", "reference_logprobs")
SHOWN_OF_GROUP = 3


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


def check_near_leaks(_home: Home, nodes: Mapping[str, Node], reporter: Reporter | None = None) -> Check:
    """Whether a held-out prompt is a near duplicate of a trained one, the clusters in the table not trusted."""
    from dpo_pipeline.preferences.leakage import near_leaks

    tables, faults = list(of_kind(nodes, "preference_pairs")), []
    for node in tables:
        least = node.artifact.manifest["settings"]["preferences"]["prompt_cluster_jaccard"]
        if leaks := near_leaks(node.artifact.path, jaccard=least, reporter=reporter):
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


def check_figures(_home: Home, nodes: Mapping[str, Node], reporter: Reporter | None = None) -> Check:
    """Whether the whole report comes out again from the rows stored beside it and the tables behind it."""
    reports = list(of_kind(nodes, "evaluation_report"))
    faults: list[str] = []
    older = [node for node in reports if node.artifact.manifest["code_version"] != _report_version()]
    compared = 0
    for node in reports:
        if node in older:
            continue
        try:
            again = _measured_again(node, reporter)
        except (PipelineError, OSError, KeyError, TypeError, ValueError) as error:
            faults.append(f"{node.artifact.path} cannot be measured again: {error!r}")
            continue
        for place, claimed, found in again:
            compared += len(claimed)
            faults += [f"{node.artifact.path}: {fault}" for fault in _differences(place, claimed, found)]
    looked = f"{compared:,} values of {len(reports) - len(older)} reports; {TAKEN_AS_SAID}"
    name = "figures follow from the stored rows"
    if not older:
        return Check(name, looked, tuple(faults))
    told = f"{older[0].artifact.path} and all of its age were made by code that measured and stored other figures"
    return Check(name, looked, tuple(faults), not_run=f"{told}; materialize evaluation_report again")


def _report_version() -> str:
    from dpo_pipeline.evaluation import CODE_VERSION

    return CODE_VERSION


def _differences(place: str, claimed: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Each figure that differs, with both values; of many that belong together the first few."""
    groups: dict[str, list[str]] = {}
    for path in dict.fromkeys([*claimed, *found]):
        said, again = claimed.get(path, "missing"), found.get(path, "missing")
        if said != again:
            group = path.rpartition("/")[0]
            groups.setdefault(group, []).append(f"{path} is {said} in {place}, {again} from the rows")
    for group, faults in groups.items():
        yield from faults[:SHOWN_OF_GROUP]
        if (more := len(faults) - SHOWN_OF_GROUP) > 0:
            yield f"{more} more values of {group} differ"


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
    short_by = again.kept["train"] - books.kept["train"] - books.kept["validation"]
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


def _measured_again(node: Node, reporter: Reporter | None) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every value of report.json and of the manifest's facts by its path: where, as claimed, as the rows give it."""
    from dpo_pipeline.evaluation.headline import headline_facts
    from dpo_pipeline.evaluation.report import read_report
    from dpo_pipeline.evaluation.restored import rebuilt_report
    from dpo_pipeline.evaluation.settings import EvaluationSettings
    from dpo_pipeline.evaluation.training import what_is_asked

    folder, settings = node.artifact.path, node.artifact.manifest["settings"]
    claimed, evaluation = (
        read_report(folder / "report.json"),
        EvaluationSettings.parse(settings["evaluation"], where="the manifest"),
    )
    behind = {kind: [parent.artifact.path for parent in parents_of_kind(node, kind)] for kind in BEHIND_A_REPORT}
    pairs, sft, reference = (behind[kind][0] for kind in ("preference_pairs", "sft_checkpoint", "reference_logprobs"))
    held_out, kept_aside = what_is_asked(pairs, behind["demonstrations"], sft, reference, evaluation, reporter)
    beta = settings["dpo"]["beta"]
    again = rebuilt_report(folder, claimed, held_out, kept_aside, settings=evaluation, beta=beta)
    facts, facts_again = dict(node.artifact.facts), headline_facts(again)
    return [
        (place, dict(_leaves("", said)), dict(_leaves("", found)))
        for place, said, found in (("report.json", claimed, again), ("the manifest", facts, facts_again))
    ]


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every value that is no list or mapping, with its path; an empty one stands for itself."""
    if isinstance(value, Mapping | list) and value:
        inside = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, each in inside:
            yield from _leaves(f"{path}/{key}" if path else str(key), each)
    else:
        yield path, value
