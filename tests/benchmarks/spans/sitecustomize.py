"""Found by every Python process of `bench_overhead.py` on its path: notes when it imports and when it is in what.

A span is [category, start, end, CPU seconds at its start, at its end], by the machine's clock and by that of the
process; a process leaves its spans and all its CPU seconds in `$DPO_BENCH_SPANS/<pid>.json`. Only the main thread
counts: it is the one that makes everybody wait.
"""

import atexit
import functools
import importlib
import json
import os
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

IN_CHILD = bool({"resources.child", "resources.warm"} & set(sys.orig_argv))
IMPORTS = "imports of children" if IN_CHILD else "imports"
WATCHED = {
    "dpo_pipeline.sft.train": {"train_sft": "library in a child"},
    "dpo_pipeline.dpo.reference": {"compute_reference": "library in a child"},
    "dpo_pipeline.dpo.train": {"train_dpo": "library in a child"},
    "dpo_pipeline.evaluation.evaluate": {"evaluate": "library in a child"},
    "resources.launchers": {"ChildProcess.launch": "start, hand-over and end of children"},
    "resources.mlflow_tracking": {
        "MlflowTracking.begin": "MLflow",
        "MlflowTracking.move_alias": "MLflow",
        "MlflowRun.end": "MLflow",
        "MlflowRun.following": "MLflow",
    },
    "dpo_pipeline.core.ledger": {"Ledger.append": "ledger"},
    "dpo_pipeline.core.artifacts": {
        "ArtifactStore.publish": "publishing",
        "ArtifactStore.find": "looking for what was made before",
    },
    "assets.inputs": {"pin_inputs": "re-hashing inputs"},
    "assets.reconcile": {"reconcile": "reconcile"},
    "assets.perform": {"_made": "library inline"},
}
"""Every function that is watched, by module, and the category its time falls into."""

spans: list[tuple[str, float, float, float, float]] = []
deep = [0]
forked_at = [0.0]  # CPU seconds a forked process had before it was one
load = importlib._bootstrap._find_and_load


def is_main():
    return threading.current_thread() is threading.main_thread()


def now():
    return time.time(), time.process_time()


def note(category, since):
    (started, cpu), (ended, cpu_then) = since, now()
    spans.append((category, started, ended, cpu, cpu_then))


@contextmanager
def span(category):
    since = now()
    try:
        yield
    finally:
        if is_main():
            note(category, since)


def watched(function, category):
    """The function, noting a span for each call; of a context manager, one for entering and one for leaving."""

    @functools.wraps(function)
    def noting(*given, **named):
        with span(category):
            return function(*given, **named)

    @contextmanager
    def entering(*given, **named):
        context = function(*given, **named)
        with span(category):
            context.__enter__()
        try:
            yield
        finally:
            with span(category):
                context.__exit__(*sys.exc_info())

    return entering if function.__name__ == "following" else noting


def find_and_load(name, import_):
    """What every `import` of a module not yet there goes through; only the outermost one is a span."""
    if not is_main():
        return load(name, import_)
    deep[0] += 1
    since = now()
    try:
        module = load(name, import_)
    finally:
        deep[0] -= 1
        if deep[0] == 0:
            note(IMPORTS, since)
    for path, category in WATCHED.get(name, {}).items():
        *owners, last = path.split(".")
        owner = functools.reduce(getattr, owners, module)
        setattr(owner, last, watched(getattr(owner, last), category))
    return module


def leave():
    said = {"spans": spans, "cpu": [forked_at[0], time.process_time()], "child": IN_CHILD}
    (Path(os.environ["DPO_BENCH_SPANS"]) / f"{os.getpid()}.json").write_text(json.dumps(said))


def begin_as_a_fork():
    spans.clear()
    forked_at[0] = time.process_time()


def leave_at_once(code):
    leave()
    end(code)


if "DPO_BENCH_SPANS" in os.environ:
    importlib._bootstrap._find_and_load = find_and_load
    atexit.register(leave)
    end, os._exit = os._exit, leave_at_once  # how a forked child ends
    # What others are forked from is killed in the end: what it did before each fork counts.
    os.register_at_fork(before=leave, after_in_child=begin_as_a_fork)
