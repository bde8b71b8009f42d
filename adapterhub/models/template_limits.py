"""Run a stranger's chat template for a limited time, memory and output.

transformers' sandbox keeps a template from reaching files and code, and lets it run for as long
as it likes. Knows nothing of conversations. What remains: one step of a template that by itself
makes gigabytes of text is noticed only once it is done.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from adapterhub.errors import DataError

MOST_SECONDS = 2.0
MOST_BYTES = 1 << 30
MOST_CHARACTERS = 10_000_000
MOST_SOURCE = 1_000_000
_MOST_NUMBER = 1_000_000
_LOOK_SECONDS = 0.02
_HINT = "use a base whose chat template is its maker's own; this one's was edited or is broken"


class _StopError(BaseException):
    """Raised inside the template's thread; no Exception, so that nothing on the way keeps it."""


def check_source(template: str) -> None:
    """Raises DataError for a template that asks for what no watch could interrupt: powers, and
    numbers beyond a million."""
    import jinja2

    if len(template) > MOST_SOURCE:
        raise _refused(f"has {len(template):,} characters, the limit is {MOST_SOURCE:,}")
    try:
        tokens = [(kind, text) for _, kind, text in jinja2.Environment().lex(template)]
    except jinja2.TemplateSyntaxError as error:
        raise _refused(f"cannot be read: {error}") from error
    for kind, text in tokens:
        if kind == "operator" and text == "**":
            raise _refused("takes powers of numbers")
        if kind == "integer" and (len(text) > 20 or int(text, 0) > _MOST_NUMBER):
            raise _refused(f"holds the number {text[:40]}")


def limited(render: Callable[[], str]) -> str:
    """What `render` returns. Raises DataError once it has taken 2 seconds of this thread or a
    GiB of memory, or has returned ten million characters."""
    watch = _Watch()
    try:
        watch.start()
        try:
            text = render()
        finally:
            watch.leave()
    except _StopError:
        raise _refused(watch.reason) from None
    if len(text) > MOST_CHARACTERS:
        raise _refused(f"wrote {len(text):,} characters, the limit is {MOST_CHARACTERS:,}")
    return text


def _refused(fact: str) -> DataError:
    return DataError(f"the base's chat template {fact}", hint=_HINT)


class _Watch:
    """Stops the thread that made it, once, unless that leaves in time."""

    def __init__(self) -> None:
        self.reason = ""
        self._most = 0
        self._thread = threading.get_ident()
        # A plain lock: to release it is one step, which no stop can come into the middle of.
        self._inside = threading.Lock()
        self._inside.acquire()
        self._watcher = threading.Thread(target=self._look, daemon=True)

    def start(self) -> None:
        """By a timer in the main thread, which costs next to nothing; elsewhere by a thread."""
        self._timed = sys.platform != "win32" and (
            threading.current_thread() is threading.main_thread()
        )
        if self._timed:
            self._end = self._clock() + MOST_SECONDS
            self._before = signal.signal(signal.SIGVTALRM, self._tick)
            signal.setitimer(signal.ITIMER_VIRTUAL, _LOOK_SECONDS, _LOOK_SECONDS)
        else:
            self._watcher.start()

    def leave(self) -> None:
        self._inside.release()
        if self._timed:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, self._before)
            return
        self._watcher.join()
        _raise_in(self._thread, None)  # a stop that has not arrived by now would hit what follows

    def _tick(self, *_: object) -> None:
        if self._inside.locked() and self._is_over():
            raise _StopError

    def _is_over(self) -> bool:
        if self._clock() > self._end:
            self.reason = f"does not come to an end: it ran for {MOST_SECONDS:g} seconds"
        elif not self._most:  # asked at the first look, since most templates are done before it
            self._most = _resident() + MOST_BYTES
        elif _resident() > self._most:
            self.reason = f"took more than {MOST_BYTES >> 30} GiB of memory"
        return bool(self.reason)

    def _clock(self) -> float:
        """Processor seconds of the watched thread, so that a busy machine stops no good template;
        where the system does not count them, seconds."""
        if sys.platform != "linux":
            return time.monotonic()
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread))

    def _look(self) -> None:
        self._end = self._clock() + MOST_SECONDS
        while not self._inside.acquire(timeout=_LOOK_SECONDS):
            if self._is_over():
                _raise_in(self._thread, _StopError)
                return


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """At that thread's next step of Python; None takes back what has not arrived."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(error) if error else None
    )


def _resident() -> int:
    """Bytes of this process in memory; 0 where the system does not say it cheaply."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
