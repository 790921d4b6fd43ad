"""Runs verbs for the tests of hostile input: each in a process of its own, watched from outside.

Started once with everything imported. Each line on stdin is a JSON object: ``words`` of the
command line, the ``folder`` to run in, ``seconds`` until it is killed, and ``file_bytes``, which is
where every file ends as if the disk were full (0: nowhere). Each answer is one JSON line: exit
code (negative: the signal that ended it), what was said, seconds, and the largest memory in bytes.
"""

import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import wsi_seg.cli.app

# What a defect may ask for at most, so that it fails here and does not take the machine down.
_ROOM = 3 << 30


def run(words: list[str], folder: str, seconds: float, file_bytes: int) -> dict[str, object]:
    """Run one command line in a fork."""
    with tempfile.TemporaryDirectory() as scratch:
        stdout, stderr = Path(scratch) / "stdout", Path(scratch) / "stderr"
        stdout.touch()  # the child may be killed before it writes a word
        stderr.touch()
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            _become(words, folder, stdout, stderr, file_bytes)
        status, memory = _wait(child, started + seconds)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": time.monotonic() - started,
            "memory": memory,
            "stdout": stdout.read_text(encoding="utf-8", errors="replace"),
            "stderr": stderr.read_text(encoding="utf-8", errors="replace"),
        }


def _become(words: list[str], folder: str, stdout: Path, stderr: Path, file_bytes: int) -> None:
    """Be the verb, and never return."""
    code = 70
    try:
        for number, file in ((0, os.devnull), (1, stdout), (2, stderr)):
            os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), number)
        os.chdir(folder)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, used + _ROOM))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if file_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        sys.argv = ["wsi-seg", *words]
        try:
            wsi_seg.cli.app.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int, until: float) -> tuple[int, int]:
    while time.monotonic() < until:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return status, usage.ru_maxrss * 1024
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return status, usage.ru_maxrss * 1024


def main() -> None:
    """Answer until stdin ends."""
    for name in sys.argv[1:]:
        __import__(name)
    for line in sys.stdin:
        asked = json.loads(line)
        sys.stdout.write(json.dumps(run(**asked)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
