"""An inbox on an object store or another machine, through fsspec: listed and fetched, never written to."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from dpo_pipeline.annotations.deliveries import NO_NAME, Delivery, judged
from dpo_pipeline.annotations.drops import is_left_out
from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.home import DROP_NAME

TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
MARKS = ("ETag", "etag", "md5Hash", "content_md5", "generation", *TIMES)
"""What stores say of a file that changes with it."""


def open_remote(url: str, *, rest_seconds: float) -> "RemoteInbox":
    """The inbox at a URL.

    Raises:
        InputError: If no installed package serves such URLs.
    """
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"the inbox {url} cannot be opened: {error}",
            expected="a URL that an installed fsspec package serves",
            do="Install it, such as `pip install s3fs` for s3://, gcsfs for gs://, adlfs for az://",
        ) from error
    return RemoteInbox(url, files, str(root).rstrip("/"), rest_seconds)


class RemoteInbox:
    """Drops under a URL; a drop is what lies under `<url>/<name>/`.

    Args:
        where: The URL, for words.
        files: The fsspec file system.
        root: The inbox's path in it.
        rest_seconds: How long nothing may have changed in a drop without a marker.
    """

    def __init__(self, where: str, files: Any, root: str, rest_seconds: float) -> None:
        self.where, self._files, self._root, self._rest = where, files, root, rest_seconds

    def look(self) -> list[Delivery]:
        """Every entry, by name."""
        drops: dict[str, dict[str, Mapping[str, Any]]] = {}
        lone: set[str] = set()
        for path, info in self._found(self._root).items():
            name, _, inside = path.partition("/")
            if inside:
                drops.setdefault(name, {})[inside] = info
            elif not name.startswith("."):
                lone.add(name)
        found = [self._delivery(name, files) for name, files in drops.items() if not name.startswith(".")]
        return sorted(
            found + [Delivery(name, "", "it is not a folder") for name in lone - drops.keys()], key=lambda d: d.name
        )

    def look_at(self, name: str) -> Delivery:
        """One entry."""
        if not DROP_NAME.fullmatch(name):
            return Delivery(name, "", NO_NAME)
        files = self._found(f"{self._root}/{name}")
        return self._delivery(name, files) if files else Delivery(name, "", "there is no folder of that name")

    def copy(self, name: str, out: Path) -> Outcome:
        """Fetch the files one by one, each held against the size the store told.

        Raises:
            InputError: If a file is gone, or shorter or longer than listed.
        """
        size, count, source = 0, 0, f"{self._root}/{name}"
        for inside, info in sorted(self._found(source).items()):
            if any(is_left_out(Path(part)) for part in PurePosixPath(inside).parts):
                continue
            target = out / "files" / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            self._fetch(f"{source}/{inside}", target)
            if target.stat().st_size != info["size"]:
                raise InputError(
                    f"{inside} of drop {name!r} has {target.stat().st_size} bytes, {self.where} listed {info['size']}",
                    do="Nothing of it was kept; run it again when the delivery is done",
                )
            size, count = size + info["size"], count + 1
        return Outcome(counts={"files": count, "bytes": size})

    def _fetch(self, path: str, target: Path) -> None:
        try:
            self._files.get_file(path, str(target))
        except FileNotFoundError as error:
            raise InputError(
                f"{path} is listed in {self.where} and cannot be read", do="Run it again when the delivery is done"
            ) from error

    def _found(self, folder: str) -> dict[str, Mapping[str, Any]]:
        """Path below the folder -> what the store says of each file; read anew, not from fsspec's cache."""
        self._files.invalidate_cache()
        prefix = folder.rstrip("/") + "/"
        try:
            listed = self._files.find(folder, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise InputError(
                f"the inbox {self.where} cannot be listed: {type(error).__name__}: {error}",
                expected="a store that can be reached and may be listed",
                do="Check its address, the network and the credentials of this process",
            ) from error
        return {path.removeprefix(prefix): info for path, info in listed.items() if path.startswith(prefix)}

    def _delivery(self, name: str, files: Mapping[str, Mapping[str, Any]]) -> Delivery:
        if not DROP_NAME.fullmatch(name):
            return Delivery(name, "", NO_NAME)
        if odd := next((path for path, info in files.items() if _is_odd(path, info, files)), None):
            return Delivery(name, "", f"it holds {odd!r}, a link, a special file or a name that points elsewhere")
        facts = [
            [path, info["size"], *(str(info[mark]) for mark in MARKS if mark in info)] for path, info in files.items()
        ]
        times = [_time_of(info) for info in files.values()]
        newest = None if None in times else max(time for time in times if time is not None)
        sizes = {path: int(info["size"] or 0) for path, info in files.items()}
        return judged(name, facts, sizes, newest, self._rest)


def _is_odd(path: str, info: Mapping[str, Any], files: Mapping[str, Any]) -> bool:
    """Whether a file could reach outside its drop, or cannot lie in a folder beside the others."""
    parts = path.split("/")
    points_elsewhere = any(part in {"", ".", ".."} or "\\" in part or not part.isprintable() for part in parts)
    is_folder_too = any("/".join(parts[:end]) in files for end in range(1, len(parts)))
    is_link = info.get("type") != "file" or bool(info.get("islink")) or info.get("size") is None
    return points_elsewhere or is_folder_too or is_link


def _time_of(info: Mapping[str, Any]) -> float | None:
    value = next((info[name] for name in TIMES if info.get(name) is not None), None)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        return value.timestamp()
    return float(value) if isinstance(value, int | float) else None
