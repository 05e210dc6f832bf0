"""The chain as a picture: one box per kind, drops together, raw files on the left, the subject on the right."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN = 148, 46, 40, 18, 8


def draw_chain(chain: Sequence[Mapping[str, Any]]) -> str:
    """An SVG; the same chain gives the same text, and every name in it is escaped.

    Args:
        chain: The nodes of an audit, each with kind, digest and parents; the subject first.
    """
    kinds: dict[str, int] = {}
    for node in chain:
        kinds[node["kind"]] = kinds.get(node["kind"], 0) + 1
    edges = sorted({(parent["kind"], node["kind"]) for node in chain for parent in node["parents"]})
    column = _columns(kinds, edges)
    places: dict[str, tuple[int, int]] = {}
    filled: dict[int, int] = {}
    for kind in sorted(kinds):
        row = filled.get(column[kind], 0)
        filled[column[kind]] = row + 1
        places[kind] = (
            MARGIN + column[kind] * (BOX_WIDTH + GAP_X),
            MARGIN + row * (BOX_HEIGHT + GAP_Y) + 12 * (column[kind] % 2),
        )
    width = MARGIN * 2 + (max(column.values(), default=0) + 1) * (BOX_WIDTH + GAP_X) - GAP_X
    height = MARGIN * 2 + max(filled.values(), default=1) * (BOX_HEIGHT + GAP_Y) + 12
    lines = [_edge(places[left], places[right]) for left, right in edges if left in places]
    boxes = [_box(kind, kinds[kind], chain, place) for kind, place in sorted(places.items())]
    style = "font-family:system-ui,sans-serif;max-width:100%"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" style="{style}">'
    return "".join([head, "<title>Lineage</title>", *lines, *boxes, "</svg>"])


def _columns(kinds: Mapping[str, int], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Longest way from a kind without inputs; bounded, so that a forged cycle ends too."""
    column = dict.fromkeys(kinds, 0)
    for _ in kinds:
        for left, right in edges:
            if left in column and left != right:
                column[right] = min(max(column[right], column[left] + 1), len(kinds))
    return column


def _edge(left: tuple[int, int], right: tuple[int, int]) -> str:
    x, y = left[0] + BOX_WIDTH, left[1] + BOX_HEIGHT // 2
    to_x, to_y = right[0], right[1] + BOX_HEIGHT // 2
    bend = (x + to_x) // 2
    return (
        f'<path d="M{x} {y}C{bend} {y} {bend} {to_y} {to_x} {to_y}" fill="none" stroke="#b6bdc9" stroke-width="1.3"/>'
    )


def _box(kind: str, count: int, chain: Sequence[Mapping[str, Any]], place: tuple[int, int]) -> str:
    x, y = place
    digests = [str(node["digest"])[:12] for node in chain if node["kind"] == kind]
    below = digests[0] if count == 1 else f"{count} drops or versions"
    is_subject = bool(chain) and kind == chain[0]["kind"]
    stroke = "#1f56d8" if is_subject else "#5b6472"
    return (
        f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" fill="#fff" stroke="{stroke}"/>'
        f'<text x="{x + 9}" y="{y + 19}" font-size="12.5" font-weight="600">{escape(kind.replace("_", " "))}</text>'
        f'<text x="{x + 9}" y="{y + 36}" font-size="11" fill="#5b6472">{escape(below)}</text>'
    )
