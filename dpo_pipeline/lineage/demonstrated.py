"""A check of the audit: whether a held-out prompt was learned as a demonstration, before a warm start too."""

from collections.abc import Iterator, Mapping

from dpo_pipeline.core.digests import short
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.chain import Node, ancestors, of_kind, parents_of_kind
from dpo_pipeline.lineage.checks import Check


def check_demonstrated(home: Home, nodes: Mapping[str, Node]) -> Check:
    """Whether the SFT behind a checkpoint, or behind one it was begun from, learned what its report holds out.

    A near copy is a note, not a fault: how many may be is the gate's rule.
    """
    from dpo_pipeline.sft.learned import held_out_learned, lesson_of

    name, faults, notes, unknown = "no held-out prompt was demonstrated", list[str](), list[str](), list[str]()
    looked = 0
    for checkpoint, pairs in _trained_and_asked(nodes):
        similarity = pairs.artifact.manifest["settings"]["preferences"]["prompt_cluster_jaccard"]
        for sft in of_kind(ancestors(checkpoint), "sft_checkpoint"):
            looked += 1
            lesson = lesson_of(home.store, sft.artifact)
            if lesson is None:
                unknown.append(f"the tables that {sft.artifact.path} was made from are gone")
                continue
            same, nearly = held_out_learned(lesson, pairs.artifact.path, similarity=similarity)
            whose = f"behind dpo_checkpoint {short(checkpoint.artifact.path.name)}"
            if same:
                faults.append(
                    f"{sft.artifact.path}, {whose}, learned {len(same)} prompts as demonstrations that "
                    f"{pairs.artifact.path} holds out: {min(same)}, ..."
                )
            if nearly:
                notes.append(
                    f"{sft.artifact.path}, {whose}, learned near copies (from {similarity} on) of {len(nearly)} "
                    f"prompts that {pairs.artifact.path} holds out: {min(nearly)}, ..."
                )
    return Check(
        name, f"{looked} SFT checkpoints, every demonstration", tuple(faults), "; ".join(unknown) or None, tuple(notes)
    )


def _trained_and_asked(nodes: Mapping[str, Node]) -> Iterator[tuple[Node, Node]]:
    """Each dpo_checkpoint with each pair table whose held-out side it is measured on: its own, and its reports'."""
    found: dict[tuple[str, str], tuple[Node, Node]] = {}
    for node in (*of_kind(nodes, "dpo_checkpoint"), *of_kind(nodes, "evaluation_report")):
        # What a champion learned is an advantage to it and none to who would replace it.
        champions = {parent.digest for parent in node.artifact.parents if parent.role == "champion"}
        models = [node] if node.artifact.kind == "dpo_checkpoint" else parents_of_kind(node, "dpo_checkpoint")
        for pairs in parents_of_kind(node, "preference_pairs"):
            for model in models:
                name = model.artifact.path.name
                if name not in champions:
                    found.setdefault((name, pairs.artifact.path.name), (model, pairs))
    yield from found.values()
