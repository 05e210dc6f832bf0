"""Putting a delivery into the inbox: copied aside, marked complete, then named by one rename. Never half there."""

import os
import shutil
import uuid
from pathlib import Path

from dpo_pipeline.annotations.drops import COMPLETE, copy_drop
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.home import DROP_NAME, Home


def add_drop(delivery: Path, home: Home, *, name: str) -> Path:
    """Copy a delivery into the inbox as a complete drop, and return the drop's folder.

    Whoever watches the inbox sees nothing before all of it is there, also if this is killed half-way.

    Args:
        delivery: A folder of export files, or a single one.
        home: Whose inbox.
        name: The drop's name.

    Raises:
        InputError: If the name does not fit or is taken, or the delivery holds no file, a link or a special file.
    """
    if not DROP_NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is not a drop name",
            expected="a letter or digit, then up to 127 letters, digits, dots, hyphens or underscores",
            do="Choose another name, such as 2026-11-vendor",
        )
    if home.inbox_url != str(home.inbox):
        raise InputError(
            f"the inbox is {home.inbox_url}, not a folder of this home",
            do=f"Copy the files there with the store's own tool, an empty file {COMPLETE} last",
        )
    target = home.inbox / name
    if target.exists():
        raise InputError(
            f"there is a drop {name!r} in {home.inbox} already",
            expected="a name of its own for every delivery, so that none replaces another",
            do=f"Choose another name, such as {name}-2",
        )
    home.inbox.mkdir(parents=True, exist_ok=True)
    aside = home.inbox / f".incoming-{os.getpid()}-{uuid.uuid4().hex}"
    try:
        aside.mkdir()
        _copy(delivery, aside)
        (aside / "files" / COMPLETE).touch()
        (aside / "files").rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _copy(delivery: Path, aside: Path) -> None:
    """The delivery's files under `aside/files`, checked as they will be when the drop is taken in."""
    if delivery.is_dir():
        copy_drop(delivery, aside)
    elif delivery.is_symlink() or not delivery.is_file():
        raise InputError(
            f"{delivery} is a link or a special file", expected="a file or a folder of files", do="Name the file itself"
        )
    else:
        (aside / "files").mkdir()
        shutil.copyfile(delivery, aside / "files" / delivery.name)
