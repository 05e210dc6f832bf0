"""The chain as a picture: one line an artifact, raw files above, the subject below, curves for what was made from what.

Read like the history of a version control system: a dot per artifact, a curve from each input down to what was made of
it. An input that another input already rests on is drawn faint, so that the strong curves alone tell the data's way.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

ROW, TOP, LANES, WIDTH = 32, 22, 170, 1180
FOLD = 6
"""Most artifacts of one kind that are drawn; more are one line."""
STAGES = {
    "raw_annotations": "#64748b",
    "judgments": "#2563eb",
    "demonstrations": "#2563eb",
    "rejected_records": "#2563eb",
    "pair_sketches": "#0891b2",
    "preference_pairs": "#0891b2",
    "annotator_report": "#0891b2",
    "sft_checkpoint": "#7c3aed",
    "reference_logprobs": "#7c3aed",
    "dpo_checkpoint": "#7c3aed",
}
OTHER = "#15803d"


def draw_chain(chain: Sequence[Mapping[str, Any]]) -> str:
    """An SVG; the same chain gives the same text, and every name in it is escaped.

    Args:
        chain: The nodes of an audit, each with role, kind, digest, made, counts and parents; the subject first.
    """
    rows = _rows(chain)
    place = {digest: number for number, row in enumerate(rows) for digest in row["digests"]}
    edges = sorted(
        {
            (place[parent["digest"]], place[node["digest"]])
            for node in chain
            for parent in node["parents"]
            if parent.get("digest") in place and place[parent["digest"]] < place[node["digest"]]
        }
    )
    strong = _not_implied(edges)
    height = TOP * 2 + ROW * (len(rows) - 1) if rows else TOP
    faint = [_edge(edge, is_strong=False) for edge in edges if edge not in strong]
    lines = [_edge(edge, is_strong=True) for edge in edges if edge in strong]
    shown = [_row(number, row, is_subject=number == len(rows) - 1) for number, row in enumerate(rows)]
    style = "font-family:system-ui,sans-serif;max-width:100%;background:#fff"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" style="{style}">'
    return "".join(
        [
            head,
            "<title>Lineage: each line is made from those its curves come from</title>",
            *faint,
            *lines,
            *shown,
            "</svg>",
        ]
    )


def _rows(chain: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line a node, inputs above what was made of them; many of one kind at one depth are one line."""
    depth = _depths(chain)
    order = sorted(chain, key=lambda node: (depth[node["digest"]], node["kind"], str(node.get("made"))))
    groups: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for node in order:
        groups.setdefault((depth[node["digest"]], node["kind"]), []).append(node)
    rows: list[dict[str, Any]] = []
    for nodes in groups.values():
        if len(nodes) > FOLD:
            said = f"{len(nodes)} of them, {_day(nodes[0])} to {_day(nodes[-1])}"
            rows.append(
                {
                    "digests": [node["digest"] for node in nodes],
                    "kind": nodes[0]["kind"],
                    "name": nodes[0]["kind"],
                    "said": said,
                }
            )
        else:
            rows += [
                {
                    "digests": [node["digest"]],
                    "kind": node["kind"],
                    "name": node.get("role", node["kind"]),
                    "said": _said(node),
                }
                for node in nodes
            ]
    return rows


def _said(node: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in _main_counts(node.get("counts") or {}))
    return " · ".join(part for part in (str(node["digest"])[:12], _day(node), counts) if part)


def _main_counts(counts: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    """The three largest, which are the rows, pairs or steps a reader looks for."""
    whole = [(name, count) for name, count in counts.items() if isinstance(count, int) and count > 0]
    return sorted(whole, key=lambda item: (-item[1], item[0]))[:3]


def _day(node: Mapping[str, Any]) -> str:
    return str(node.get("made") or "not in the ledger")[:16].replace("T", " ")


def _depths(chain: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Longest way from a node without inputs; bounded, so that a forged cycle ends too."""
    depth = dict.fromkeys((node["digest"] for node in chain), 0)
    for _ in chain:
        is_settled = True
        for node in chain:
            above = [depth[parent["digest"]] + 1 for parent in node["parents"] if parent.get("digest") in depth]
            deepest = min(max(above, default=0), len(chain))
            is_settled &= deepest <= depth[node["digest"]]
            depth[node["digest"]] = max(depth[node["digest"]], deepest)
        if is_settled:
            break
    return depth


def _not_implied(edges: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    """The edges that are no short cut past another row: the transitive reduction."""
    below: dict[int, set[int]] = {}
    for left, right in edges:
        below.setdefault(left, set()).add(right)
    reached: dict[int, set[int]] = {}
    for left in sorted(below, reverse=True):
        reached[left] = below[left].union(*(reached.get(one, set()) for one in below[left]))
    return {
        (left, right)
        for left, right in edges
        if not any(right in reached.get(one, ()) for one in below[left] if one != right)
    }


def _edge(edge: tuple[int, int], *, is_strong: bool) -> str:
    top, bottom = (TOP + ROW * number for number in edge)
    reach = min(14 + 13 * (edge[1] - edge[0]), LANES - 20)
    stroke = 'stroke="#334155" stroke-width="1.6"' if is_strong else 'stroke="#cbd5e1" stroke-width="1"'
    x = LANES
    return f'<path d="M{x} {top}C{x - reach} {top} {x - reach} {bottom} {x} {bottom}" fill="none" {stroke}/>'


def _row(number: int, row: Mapping[str, Any], *, is_subject: bool) -> str:
    y = TOP + ROW * number
    colour = STAGES.get(row["kind"], OTHER)
    ring = (
        f'<circle cx="{LANES}" cy="{y}" r="10" fill="none" stroke="{colour}" stroke-width="1.5"/>' if is_subject else ""
    )
    name, x = escape(str(row["name"])), LANES + 20
    return (
        f'{ring}<circle cx="{LANES}" cy="{y}" r="5.5" fill="{colour}"/>'
        f'<text x="{x}" y="{y + 5}" font-size="14" font-weight="600" fill="#14181f">{name}</text>'
        f'<text x="{x + 290}" y="{y + 5}" font-size="13" fill="#475569">{escape(row["said"])}</text>'
    )
