"""A process that has imported what every training imports, and forks a child for each piece of work it is sent.

Importing torch and transformers takes about five CPU seconds, and a run has four pieces of work. Forked children share
what was imported and give all they take themselves back, as fresh processes do. Only where there is no accelerator: a
driver that was touched before a fork is of no use after it.

Run as `python -m resources.warm PARENT SOCKET` by `resources.launchers.ForkedChild`; never by hand. An order is a line
of JSON, the child's environment, and two file descriptors, its stdout and stderr; the answers are a line with the
child's process id and, when it has ended, one with its exit code (negative: the signal that ended it).
"""

import importlib
import json
import os
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.core.parenthood import die_with_parent
from resources import child

IMPORTED = (
    "dagster_pipes",
    "dpo_pipeline.sft.train",
    "dpo_pipeline.dpo.reference",
    "dpo_pipeline.dpo.train",
    "dpo_pipeline.evaluation.evaluate",
    "dpo_pipeline.evaluation.sweep",
    "transformers.models.llama",
    "matplotlib.backends.backend_agg",
)
"""What the children would import one after the other; what is missing here they import themselves."""

CHUNK = 1 << 16


class Line:
    """One end of a line between two processes: messages, and open files with them.

    Args:
        end: This end's socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self.end, self._data, self._files = end, b"", list[int]()

    def send(self, message: Any, files: Sequence[int] = ()) -> None:
        """Send a message; with it, copies of open files."""
        data = json.dumps(message).encode() + b"\n"
        sent = socket.send_fds(self.end, [data], files) if files else 0
        self.end.sendall(data[sent:])

    def receive(self) -> tuple[Any, list[int]] | None:
        """The next message and the files that came with it; None once the other end is gone."""
        while b"\n" not in self._data:
            part, files, _, _ = socket.recv_fds(self.end, CHUNK, 2)
            if not part:
                return None
            self._data, self._files = self._data + part, self._files + list(files)
        message, _, self._data = self._data.partition(b"\n")
        files, self._files = self._files, []
        return json.loads(message), files


def serve(line: Line) -> None:
    """Fork a child for each order, one at a time, until the other end is closed."""
    for module in IMPORTED:
        try:
            importlib.import_module(module)
        except Exception:  # noqa: BLE001, S112 - the child that needs it meets the same error, and tells it
            continue
    while (order := line.receive()) is not None:
        environment, streams = order
        warm = os.getpid()
        pid = os.fork()
        if pid == 0:
            line.end.close()
            os._exit(_be_child(warm, environment, streams))
        for stream in streams:
            os.close(stream)
        line.send(pid)
        _, status = os.waitpid(pid, 0)
        line.send(os.waitstatus_to_exitcode(status))


def _be_child(warm: int, environment: Mapping[str, str], streams: list[int]) -> int:
    """The life of a forked child; its exit code. Nothing of the process it came from is cleared up by it."""
    code = 1
    try:
        for number, stream in enumerate(streams, start=1):
            os.dup2(stream, number)
            os.close(stream)
        os.environ.clear()
        os.environ.update(environment)
        code = child.main(warm)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - whatever it was, this process must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return code


def main() -> None:
    """Serve the socket whose number was given."""
    die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the child; this one ends with its parent
    warnings.filterwarnings("ignore", message=".*use of fork.*", category=DeprecationWarning)
    serve(Line(socket.socket(fileno=int(sys.argv[2]))))


if __name__ == "__main__":
    main()
