"""A drop as it was delivered: copying it in, and reading its `drop.yaml` strictly."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from dpo_pipeline.annotations.drop_rules import DropRules
from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.errors import InputError, SettingsError

DROP_YAML = "drop.yaml"
COMPLETE = "_COMPLETE"
MAX_DROP_YAML_BYTES = 1_000_000


def copy_drop(inbox_folder: Path, out: Path) -> Outcome:
    """Copy a drop's files to `out/files/`, unread. Sub-folders are kept; the marker and hidden files are left out.

    Returns:
        Counts `files` and `bytes`.

    Raises:
        InputError: If there is a symbolic link or something that is not a plain file, or no file at all.
    """
    files = sorted(_plain_files(inbox_folder))
    if not files:
        raise InputError(
            f"the drop folder {inbox_folder} holds no files",
            expected="the export files of one delivery",
            do="Put the files there, or remove the folder",
        )
    size = 0
    for path in files:
        target = out / "files" / path.relative_to(inbox_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target, follow_symlinks=False)
        size += target.stat().st_size
    return Outcome(counts={"files": len(files), "bytes": size})


def _plain_files(folder: Path) -> list[Path]:
    found = []
    for path in folder.iterdir():
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise InputError(
                f"{path} is a link or a special file",
                expected="plain files and folders, so that a drop cannot reach outside itself",
                do="Replace it by the file itself",
            )
        if is_left_out(path):
            continue
        found += _plain_files(path) if path.is_dir() else [path]
    return found


def is_left_out(path: Path) -> bool:
    """Whether a file of a drop's folder is not part of the delivery: the marker of completeness, a hidden file."""
    return path.name == COMPLETE or path.name.startswith(".")


def load_rules(folder: Path) -> DropRules:
    """What `drop.yaml` in a folder says; the defaults where there is none.

    Raises:
        SettingsError: If it is not YAML, too large, repeats a key, uses aliases, or values do not fit.
    """
    path = folder / DROP_YAML
    if not path.is_file():
        return DropRules()
    content = path.read_bytes()
    if len(content) > MAX_DROP_YAML_BYTES:
        raise SettingsError(DROP_YAML, [f"it is {len(content)} bytes long; at most {MAX_DROP_YAML_BYTES} are read"])
    try:
        # Every scalar stays a text here, so that a vocabulary's `yes` or `007` is what the author wrote.
        values = yaml.load(content, Loader=_StrictLoader)  # noqa: S506 (derives from the loader that makes only texts)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(DROP_YAML, [f"it is not YAML: {error}"]) from error
    return DropRules.parse({} if values in (None, "") else values, where=DROP_YAML)


class _StrictLoader(yaml.BaseLoader):
    """YAML as texts, lists and mappings only; refuses aliases (they can be bombs) and repeated keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 (PyYAML's signature)
        keys = [key.value for key, _ in node.value]
        repeated = {str(key) for key in keys if keys.count(key) > 1}
        if repeated:
            raise yaml.YAMLError(f"{', '.join(sorted(repeated))} stands there twice")
        return super().construct_mapping(node, deep=deep)
