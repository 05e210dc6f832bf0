"""What a drop holds: its files and the members of its archives, each to be opened as a bounded stream of bytes.

Nothing is extracted to disk, and no name from an archive is ever used as a path.
"""

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dpo_pipeline.annotations.drops import DROP_YAML, is_left_out
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Unusable, shown
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.annotations.streams import (
    COMPRESSIONS,
    KINDS,
    STREAM_ERRORS,
    Bounded,
    decompressed,
    kind_of_name,
    open_file,
)
from dpo_pipeline.core.digests import sha256_of_file

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_MEMBERS = 10_000

Opener = Callable[[], AbstractContextManager[Bounded]]


@dataclass(frozen=True, slots=True)
class Source:
    """Something that holds records, or that should and cannot be read.

    Attributes:
        name: POSIX path inside the drop; `archive.zip!member` for members.
        sha256: Digest of the file's bytes (of the archive, for members).
        kind: Which of `KINDS` its name ends in.
        open: Gives its decompressed bytes, as a context manager; None where it cannot be read.
        problem: Why it cannot be read; None where it can.
    """

    name: str
    sha256: str
    kind: str = ""
    open: Opener | None = None
    problem: Unusable | None = None


def sources_of(folder: Path, settings: AnnotationSettings) -> Iterator[Source]:
    """Every file under a folder and every member of its archives, sorted by name.

    `drop.yaml`, the marker of completeness and hidden files are left out, as in `copy_drop`.

    A file with the same bytes as an earlier one is given as a problem, not read twice.
    """
    seen: dict[str, str] = {}
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = _plain(path.relative_to(folder).as_posix())
        if name == DROP_YAML or is_left_out(path) or (path.is_dir() and not path.is_symlink()):
            continue
        if path.is_symlink() or not path.is_file():
            yield Source(name, "", problem=Unusable(Reason.UNREADABLE_FILE, "a link or special file"))
            continue
        sha256 = sha256_of_file(path)
        first = seen.setdefault(sha256, name)
        if first != name:
            problem = Unusable(Reason.DUPLICATE_FILE, f"the same bytes as {shown(first)}")
            yield Source(name, sha256, problem=problem)
        else:
            yield from _sources_in(path, name, sha256, settings)


def sources_of_file(path: Path, settings: AnnotationSettings) -> Iterator[Source]:
    """One file, or the members of one archive, under the file's own name."""
    yield from _sources_in(path, _plain(path.name), sha256_of_file(path), settings)


def _sources_in(path: Path, name: str, sha256: str, settings: AnnotationSettings) -> Iterator[Source]:
    lowered = name.lower()
    if lowered.endswith(".zip"):
        yield from _zip_sources(path, name, sha256, settings)
    elif lowered.endswith(ARCHIVES):
        yield from _tar_sources(path, name, sha256, settings)
    elif (found := kind_of_name(lowered)) is None:
        yield Source(name, sha256, problem=_unknown_type(name))
    else:
        kind, compression = found
        yield Source(name, sha256, kind, lambda: open_file(path, compression, settings))


def _plain(name: str) -> str:
    """A name as it may stand in a table: bytes that are no UTF-8 and unprintable characters escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _unknown_type(name: str) -> Unusable:
    ending = PurePosixPath(name).suffix or "no ending"
    if "!" in name and name.lower().endswith(ARCHIVES):
        return Unusable(
            Reason.UNKNOWN_FILE_TYPE, "an archive inside an archive is not read: unpack it beside the others"
        )
    return Unusable(
        Reason.UNKNOWN_FILE_TYPE, f"{shown(ending)}; read are {' '.join((*KINDS, *COMPRESSIONS, *ARCHIVES))}"
    )


def _zip_sources(path: Path, name: str, sha256: str, settings: AnnotationSettings) -> Iterator[Source]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.filename)
    except (*STREAM_ERRORS, ValueError) as error:
        yield Source(name, sha256, problem=Unusable(Reason.UNREADABLE_FILE, f"not a zip archive: {error}"))
        return
    if len(members) > MAX_MEMBERS:
        problem = Unusable(Reason.FILE_TOO_LARGE, f"{len(members)} members; at most {MAX_MEMBERS} are read")
        yield Source(name, sha256, problem=problem)
        return
    seen: set[str] = set()
    members = [member for member in members if not member.is_dir()]
    if not members:
        yield Source(name, sha256, problem=Unusable(Reason.EMPTY_FILE, "the archive has no members"))
    for member in members:
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        problem = _member_problem(member.filename, is_plain=not is_link, is_encrypted=bool(member.flag_bits & 1))
        if problem is None and member.filename in seen:
            problem = Unusable(Reason.UNSAFE_MEMBER, "another member bears the same name")
        seen.add(member.filename)
        yield _member_source(
            f"{name}!{_plain(member.filename)}",
            sha256,
            problem,
            lambda member=member: _open_zipped(path, member, settings),
        )


@contextmanager
def _open_zipped(path: Path, member: zipfile.ZipInfo, settings: AnnotationSettings) -> Iterator[Bounded]:
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
            stream = stack.enter_context(archive.open(member))
        except STREAM_ERRORS as error:
            raise Unusable(Reason.UNREADABLE_FILE, f"the member cannot be opened: {error}") from error
        yield Bounded(decompressed(stream, _compression_of(member.filename)), settings, member.compress_size)


def _tar_sources(path: Path, name: str, sha256: str, settings: AnnotationSettings) -> Iterator[Source]:
    """Members in the archive's order, which is the only one it can be read in; read each before asking for the next."""
    seen: set[str] = set()
    compression = "" if path.name.lower().endswith(".tar") else ".gz"
    with open_file(path, compression, settings) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    if member.isdir():
                        continue
                    yield _tar_source(archive, member, f"{name}!{_plain(member.name)}", sha256, settings, seen)
                    seen.add(member.name)
                    if len(seen) >= MAX_MEMBERS:
                        problem = Unusable(Reason.FILE_TOO_LARGE, f"more than {MAX_MEMBERS} members")
                        yield Source(name, sha256, problem=problem)
                        return
        except Unusable as problem:
            yield Source(name, sha256, problem=problem)
        except STREAM_ERRORS as error:
            yield Source(name, sha256, problem=Unusable(Reason.UNREADABLE_FILE, f"the archive breaks: {error}"))
        else:
            if not seen:
                yield Source(name, sha256, problem=Unusable(Reason.EMPTY_FILE, "the archive has no members"))


def _tar_source(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    name: str,
    sha256: str,
    settings: AnnotationSettings,
    seen: set[str],
) -> Source:
    @contextmanager
    def opened() -> Iterator[Bounded]:
        stream = archive.extractfile(member)
        assert stream is not None  # a plain member always has bytes
        yield Bounded(decompressed(stream, _compression_of(member.name)), settings, member.size)

    problem = _member_problem(member.name, is_plain=member.isreg(), is_encrypted=False)
    if problem is None and member.name in seen:
        problem = Unusable(Reason.UNSAFE_MEMBER, "another member bears the same name")
    return _member_source(name, sha256, problem, opened)


def _compression_of(name: str) -> str:
    found = kind_of_name(name.lower())
    return found[1] if found else ""


def _member_problem(name: str, *, is_plain: bool, is_encrypted: bool) -> Unusable | None:
    """Why a member is not read, or None."""
    path = PurePosixPath(name.replace("\\", "/"))
    if not is_plain:
        return Unusable(Reason.UNSAFE_MEMBER, "a link or special file")
    if is_encrypted:
        return Unusable(Reason.UNSAFE_MEMBER, "encrypted")
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")) or "\0" in name:
        return Unusable(Reason.UNSAFE_MEMBER, "a name that points outside the archive")
    if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
        return Unusable(Reason.IGNORED_FILE, "a hidden file, such as macOS puts into archives")
    if kind_of_name(name.lower()) is None:
        return _unknown_type(f"!{name}")
    return None


def _member_source(name: str, sha256: str, problem: Unusable | None, opener: Opener) -> Source:
    if problem is not None:
        return Source(name, sha256, problem=problem)
    found = kind_of_name(name.lower())
    assert found is not None
    return Source(name, sha256, found[0], opener)
