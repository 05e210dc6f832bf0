"""The drops of a home as a person asks for them: what was taken in, in which versions, and what waits in the inbox."""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.arrivals import Inbox, states_taken_in
from dpo_pipeline.annotations.deliveries import Delivery
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.home import Home


def list_drops(home: Home, inbox: Inbox) -> dict[str, Any]:
    """Every drop taken in, in order of arrival, and every entry of the inbox that is not.

    Returns:
        `drops`: name, `versions` (oldest first: digest of the raw files, time, records in, kept, rejected) and `inbox`
        (what the inbox holds under that name now); `inbox`: name and `state` of every other entry there.
    """
    taken_in, deliveries = states_taken_in(home), {delivery.name: delivery for delivery in inbox.look()}
    drops = [
        {
            "name": name,
            "versions": versions_of(home, name),
            "inbox": _state(deliveries.get(name), taken_in[name]),
        }
        for name in home.partitions("raw_annotations")
    ]
    others = [{"name": name, "state": _state(d, None)} for name, d in deliveries.items() if name not in taken_in]
    return {"drops": drops, "inbox": others}


def versions_of(home: Home, drop: str) -> list[dict[str, Any]]:
    """Each distinct content a drop was taken in with, oldest first, with the books of the judgments read from it."""
    first: dict[str, str] = {}
    for line in home.finished():
        if line["asset"] == "raw_annotations" and line["partition"] == drop:
            first.setdefault(line["artifact"], line.get("time", ""))
    books = _books_by_raw(home, drop)
    return [
        {"version": number, "digest": digest, "time": time, **books.get(digest, {})}
        for number, (digest, time) in enumerate(first.items(), start=1)
    ]


def as_text(listing: Mapping[str, Any]) -> str:
    """The listing as lines for a terminal."""
    lines = [line for drop in listing["drops"] for line in _drop_lines(drop)]
    lines += ["", "in the inbox, not taken in:"] if listing["inbox"] else []
    lines += [f"  {entry['name']:32} {entry['state']}" for entry in listing["inbox"]]
    return "\n".join(lines) or "No drop was taken in yet, and none lies in the inbox."


def _drop_lines(drop: Mapping[str, Any]) -> Sequence[str]:
    *earlier, newest = drop["versions"]
    lines = [f"{drop['name']:32} {_numbers(newest)}"]
    lines += [
        f"  version {one['version']}, kept: {one['digest'][:12]} of {one['time'][:16]} {_numbers(one)}"
        for one in earlier
    ]
    if earlier:
        lines.append(f"  version {newest['version']}, in use: {newest['digest'][:12]} of {newest['time'][:16]}")
    if drop["inbox"]:
        lines.append(f"  in the inbox: {drop['inbox']}")
    return lines


def _numbers(version: Mapping[str, Any]) -> str:
    if "records_in" not in version:
        return "not read yet"
    return f"{version['records_in']:>9,} in {version['kept']:>9,} kept {version['rejected']:>7,} rejected"


def _state(delivery: Delivery | None, taken_in: str | None) -> str | None:
    """What the inbox holds beyond what was taken in; None where that is all."""
    if delivery is None or delivery.state == taken_in:
        return None
    if delivery.hindrance is not None:
        return f"{'waits' if delivery.is_waiting else 'passed over'}: {delivery.hindrance}"
    facts = f"{delivery.files:,} files, {delivery.bytes:,} bytes"
    return f"complete, {facts}" if taken_in is None else f"changed since, {facts}: becomes a new version"


def _books_by_raw(home: Home, drop: str) -> dict[str, dict[str, int]]:
    """Digest of the raw files -> records in, kept and rejected of the newest judgments read from them."""
    found: dict[str, dict[str, int]] = {}
    for line in home.finished():
        if line["asset"] != "judgments" or line["partition"] != drop:
            continue
        try:
            judgments = home.store.get("judgments", line["artifact"])
        except ArtifactError:
            continue
        books = judgments.books
        if books is not None:
            counts = {"records_in": books.records_in, "kept": books.kept_count, "rejected": books.rejected_count}
            found |= {parent.digest: counts for parent in judgments.parents if parent.kind == "raw_annotations"}
    return found
