"""Charts as inline SVG text: pure functions on report values, no script, every label escaped, equal bytes each time.

Colours and type come from the page's style sheet through the classes `m-<place>` (place of the model) and `axis`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

Figure = Mapping[str, Any]
HALF, FULL = 508, 1056
"""Units across of a picture that takes half or all of the page's width; one unit is one pixel there."""
FAMILY_GAP = 26


class Canvas:
    """Shapes gathered into one SVG picture.

    Args:
        width: Units across; text is 12 units high.
        height: Units down.
        title: What the picture shows, for screen readers.
    """

    def __init__(self, width: float, height: float, *, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self._parts: list[str] = []

    def line(self, start: tuple[float, float], end: tuple[float, float], *, style: str) -> None:
        """A straight line of a CSS class."""
        self._parts.append(
            f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" class="{style}"/>'
        )

    def box(self, x: float, y: float, width: float, height: float, *, style: str, hint: str = "") -> None:
        """A filled rectangle of a CSS class; `hint` is shown on hovering."""
        body = f"<title>{escape(hint)}</title>" if hint else ""
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}" '
            f'class="{style}">{body}</rect>'
        )

    def dot(self, x: float, y: float, *, radius: float, style: str, hint: str = "") -> None:
        """A filled circle of a CSS class; `hint` is shown on hovering."""
        body = f"<title>{escape(hint)}</title>" if hint else ""
        self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="{style}">{body}</circle>')

    def path(self, points: Sequence[tuple[float, float]], *, style: str, closed: bool = False) -> None:
        """A polyline, or a filled outline where closed."""
        if points:
            steps = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            self._parts.append(f'<path d="M{steps}{"Z" if closed else ""}" class="{style}"/>')

    def text(self, x: float, y: float, words: str, *, style: str = "", anchor: str = "start") -> None:
        """Words; `anchor` is start, middle or end."""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}">{escape(words)}</text>'
        )

    def svg(self, *, style: str = "chart") -> Markup:
        """The finished picture, safe to stand in a page."""
        body = "".join(self._parts)
        return Markup(  # noqa: S704 - every text above went through escape()
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" class="{style}" role="img" '
            f'aria-label="{escape(self.title)}">{body}</svg>'
        )


def interval_strip(
    marks: Sequence[tuple[str, float, float, float]], scale: tuple[float, float], places: Mapping[str, int]
) -> Markup:
    """The small strip under a big number: a dot with its interval per model on one common scale."""
    canvas = Canvas(280, 14, title="; ".join(f"{name} {value:.3g}" for name, value, _, _ in marks))
    low, high = scale

    def across(value: float) -> float:
        return 5 + 270 * (min(max(value, low), high) - low) / (high - low)

    canvas.line((5, 7), (275, 7), style="track")
    for name, value, start, end in marks:
        canvas.line((across(start), 7), (across(end), 7), style=f"range m-{places[name]}")
        canvas.dot(across(value), 7, radius=4, style=f"m-{places[name]}")
    return canvas.svg(style="strip")


def interval_rows(
    rows: Sequence[Mapping[str, Any]], places: Mapping[str, int], *, title: str, width: float = HALF
) -> Markup:
    """One row per label with a dot and interval per model, on a percentage axis; rows may open a new family.

    Args:
        rows: `label`, `note`, `figures` (model -> figure, None leaves its lane empty) and, where a new family starts,
            `family`.
        places: Place of each model, which gives its colour.
        title: What the picture shows.
        width: HALF or FULL.
    """
    left, right, lane = (0.4 if width < FULL else 0.3) * width, width - 18, 11
    heights = [10 + lane * len(row["figures"]) for row in rows]
    bottom = sum(heights) + FAMILY_GAP * sum("family" in row for row in rows) + 6
    canvas = Canvas(width, bottom + 28, title=title)

    def across(value: float) -> float:
        return left + (right - left) * value

    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        canvas.line((across(tick), 2), (across(tick), bottom), style="half" if tick == 0.5 else "grid")
        canvas.text(across(tick), bottom + 16, f"{100 * tick:.0f} %", style="axis", anchor="middle")
    top = 0.0
    for row, height in zip(rows, heights, strict=True):
        if "family" in row:
            top += FAMILY_GAP
            canvas.text(0, top - 6, row["family"], style="family")
        middle = top + 5 + lane * len(row["figures"]) / 2
        canvas.text(
            14,
            middle + 4,
            _shortened(row["label"], int((left - 75) / 5.7) if row["note"] else int(left / 6.6)),
            style="label",
        )
        canvas.text(left - 12, middle + 4, row["note"], style="axis", anchor="end")
        for at, (name, figure) in enumerate(row["figures"].items()):
            _interval(canvas, figure, top + 10 + lane * at, across, name, places)
        top += height
    return canvas.svg()


def _interval(canvas: Canvas, figure: Figure, y: float, across: Any, name: str, places: Mapping[str, int]) -> None:
    if figure is None:
        return
    if figure["value"] is None:
        canvas.text(across(0.5), y + 3, "not measured", style="axis", anchor="middle")
        return
    value, low, high = (100 * figure[end] for end in ("value", "low", "high"))
    hint = f"{name}: {value:.1f} % ({low:.1f} to {high:.1f}), n = {figure['count']}"
    canvas.line((across(figure["low"]), y), (across(figure["high"]), y), style=f"range m-{places[name]}")
    canvas.dot(across(figure["value"]), y, radius=4, style=f"m-{places[name]}", hint=hint)


def outcome_bars(judges: Sequence[Mapping[str, Any]]) -> Markup:
    """Won, tied and lost comparisons per judge as one stacked bar each, with the win rate's interval."""
    lane = 58
    canvas = Canvas(HALF, lane * len(judges) + 4, title="Comparisons won, tied and lost, by judge")
    for row, judge in enumerate(judges):
        y, x = lane * row + 20, 0.0
        answered = judge["wins"] + judge["ties"] + judge["losses"]
        canvas.text(0, y - 7, _shortened(f"{judge['judge']}, against {judge['opponent']}", 72), style="label")
        for outcome, words in (("wins", "won"), ("ties", "tied"), ("losses", "lost")):
            width = HALF * judge[outcome] / answered if answered else 0
            canvas.box(x, y, max(0, width - 1.5), 24, style=outcome, hint=f"{judge[outcome]} {words}")
            if width > 70:
                canvas.text(x + 8, y + 16, f"{judge[outcome]} {words}", style=f"on-{outcome}")
            x += width
        if not answered:
            canvas.text(0, y + 16, "no usable answer", style="axis")
    return canvas.svg()


def length_strips(by_length: Mapping[str, Sequence[int]]) -> Markup:
    """Words by which the challenger's reply is longer, one dot per comparison, by outcome; stacked where they meet."""
    left, right, lane = 60, HALF - 16, 74
    pooled = sorted(value for values in by_length.values() for value in values)
    reach = max(5, *(abs(pooled[at * (len(pooled) - 1) // 100]) for at in (1, 99))) if pooled else 5
    canvas = Canvas(HALF, lane * len(by_length) + 40, title="Length difference by outcome")

    def across(value: float) -> float:
        return left + (right - left) * (min(max(value, -reach), reach) + reach) / (2 * reach)

    bottom = lane * len(by_length) + 4
    for share in (-1.0, -0.5, 0.0, 0.5, 1.0):
        value = reach * share
        canvas.line((across(value), 4), (across(value), bottom), style="half" if share == 0 else "grid")
        canvas.text(across(value), bottom + 16, f"{value:+.0f}" if value else "same", style="axis", anchor="middle")
    canvas.text(
        (left + right) / 2, bottom + 33, "words longer than the baseline's reply", style="axis", anchor="middle"
    )
    for row, (outcome, values) in enumerate(by_length.items()):
        base = lane * (row + 1) - 6
        canvas.text(0, base - lane / 2 + 14, outcome, style="label")
        canvas.line((left, base), (right, base), style="track")
        _stack(canvas, values, base, across, style={"win": "wins", "tie": "ties", "loss": "losses"}[outcome])
    return canvas.svg()


def _stack(canvas: Canvas, values: Sequence[int], base: float, across: Any, *, style: str) -> None:
    """Bars of a histogram two words wide: readable for ten comparisons and for ten thousand."""
    places: dict[float, int] = {}
    for value in values:
        spot = round(across(value) / 7) * 7
        places[spot] = places.get(spot, 0) + 1
    tallest = max(places.values(), default=1)
    for spot, count in sorted(places.items()):
        height = 56 * count / max(tallest, 8)
        canvas.box(spot - 3, base - height, 6, height, style=style, hint=f"{count} comparisons")


def overlaid_histograms(histogram: Mapping[str, Any], places: Mapping[str, int], *, axis: str) -> Markup:
    """Outlined, filled histograms of several models over common bins, zero marked."""
    edges, counts = histogram["edges"], histogram["counts"]
    left, right, top, bottom = 8.0, HALF - 8.0, 8.0, 200.0
    canvas = Canvas(HALF, 246, title=axis)
    if not edges:
        canvas.text(left, 40, "nothing to show", style="axis")
        return canvas.svg()
    tallest = max((max(each) for each in counts.values()), default=1) or 1

    def across(value: float) -> float:
        return left + (right - left) * (value - edges[0]) / (edges[-1] - edges[0])

    for tick in _round_ticks(edges[0], edges[-1]):
        canvas.line((across(tick), top), (across(tick), bottom), style="half" if tick == 0 else "grid")
        canvas.text(across(tick), bottom + 16, f"{tick:g}", style="axis", anchor="middle")
    for name, heights in counts.items():
        steps = [(across(edges[0]), bottom)]
        for at, count in enumerate(heights):
            y = bottom - (bottom - top) * count / tallest
            steps += [(across(edges[at]), y), (across(edges[at + 1]), y)]
        canvas.path([*steps, (across(edges[-1]), bottom)], style=f"area m-{places[name]}", closed=True)
    canvas.line((left, bottom), (right, bottom), style="track")
    canvas.text((left + right) / 2, bottom + 36, axis, style="axis", anchor="middle")
    return canvas.svg()


def reliability(bins: Sequence[Mapping[str, Any]]) -> Markup:
    """Share of right calls against stated confidence; the diagonal is perfect calibration, area is the count."""
    size, left, top = 300.0, 46.0, 16.0
    canvas = Canvas(380, 374, title="Calibration of the Bradley-Terry probability")

    def place(confidence: float, right: float) -> tuple[float, float]:
        return left + size * (confidence - 0.5) * 2, top + size * (1 - right)

    for step in range(6):
        tick, spot = step / 5, 0.5 + step / 10
        canvas.line(place(0.5, tick), place(1.0, tick), style="grid")
        canvas.text(left - 8, place(0.5, tick)[1] + 4, f"{100 * tick:.0f} %", style="axis", anchor="end")
        canvas.text(place(spot, 0)[0], top + size + 18, f"{100 * spot:.0f} %", style="axis", anchor="middle")
    canvas.line(place(0.5, 0.5), place(1.0, 1.0), style="half")
    most = max((each["count"] for each in bins), default=1) or 1
    for each in bins:
        if each["count"]:
            right = each["right"]
            x, y = place(each["confidence"], right["value"])
            hint = f"{each['count']} pairs, confidence {each['confidence']:.2f}, right {right['value']:.2f}"
            canvas.line(
                place(each["confidence"], right["low"]), place(each["confidence"], right["high"]), style="range m-1"
            )
            canvas.dot(x, y, radius=4 + 9 * (each["count"] / most) ** 0.5, style="m-1 bubble", hint=hint)
    canvas.text(left + size / 2, top + size + 38, "confidence of the call", style="axis", anchor="middle")
    return canvas.svg(style="chart narrow")


def curve(points: Sequence[tuple[float, float]], *, title: str, place: int) -> Markup:
    """One small training curve with its first and last value written out."""
    canvas = Canvas(330, 158, title=title)
    canvas.text(0, 12, title, style="label")
    values = [value for _, value in points]
    low, high = min(values), max(values)
    spread, last_step = (high - low) or 1.0, max(points[-1][0], 1)

    def spot(step: float, value: float) -> tuple[float, float]:
        return 42 + 230 * step / last_step, 130 - 100 * (value - low) / spread

    for level in (low, high):
        canvas.line((42, spot(0, level)[1]), (272, spot(0, level)[1]), style="grid")
        canvas.text(36, spot(0, level)[1] + 4, f"{level:.3g}", style="axis", anchor="end")
    canvas.path([spot(*point) for point in points], style=f"curve m-{place}")
    x, y = spot(*points[-1])
    canvas.dot(x, y, radius=3, style=f"m-{place}")
    canvas.text(x + 7, y + 4, f"{values[-1]:.3g}", style="label")
    canvas.text(272, 148, f"step {last_step:,.0f}", style="axis", anchor="end")
    return canvas.svg(style="chart small")


def _round_ticks(low: float, high: float) -> list[float]:
    """At most eight round numbers between two ends, zero among them where it lies between."""
    span = high - low
    step = next(size * 10.0**power for power in range(-6, 10) for size in (1, 2, 5) if span / (size * 10.0**power) <= 8)
    first = -int(-low // step) if low > 0 else int(low // step)
    return [round(at * step, 9) for at in range(first, int(high // step) + 1) if low <= at * step <= high]


def _shortened(words: str, length: int) -> str:
    return words if len(words) <= length else words[: length - 1] + "…"
