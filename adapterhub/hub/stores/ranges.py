"""Read a body over a line that drops: go on with a range request where the last one stopped.

Knows HTTP answers, not what they hold; which client opens the connection is its caller's choice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from adapterhub.errors import AdapterhubError, RemoteError
from adapterhub.hub.files import CHUNK
from adapterhub.hub.stores.answers import RETRIED

BACKOFF = (0.5, 1.0, 2.0, 4.0)
_LONGEST_PAUSE = 30.0
_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """How to open the body at an offset, check its status, and which exceptions mean failure."""

    open_at: Callable[[int], AbstractContextManager[Any]]
    check: Callable[[Any], None]
    raised: tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True)
class Body:
    stream: Stream
    what: str
    endpoint: str

    def chunks(
        self,
        offset: int,
        *,
        backoff: tuple[float, ...],
        fail: Callable[[BaseException], AdapterhubError],
    ) -> Iterator[bytes]:
        """The bytes from `offset` on. A try that brought something starts the count anew."""
        position = offset
        waits = list(backoff)
        while True:
            try:
                for chunk in self._once(position):
                    position += len(chunk)
                    waits = list(backoff)
                    yield chunk
                return
            except self.stream.raised as error:
                response = getattr(error, "response", None)
                final = response is not None and response.status_code not in RETRIED
                if final or not waits:
                    raise fail(error) from error
            pause(waits.pop(0), response)

    def _once(self, position: int) -> Iterator[bytes]:
        with self.stream.open_at(position) as response:
            if response.status_code == 416:  # nothing is left from here on
                return
            self.stream.check(response)
            skip = self._to_skip(response, position)
            for chunk in response.iter_bytes(CHUNK):
                if skip >= len(chunk):
                    skip -= len(chunk)
                else:
                    yield chunk[skip:]
                    skip = 0

    def _to_skip(self, response: Any, position: int) -> int:
        """How many bytes of this body came before: all of them where Range was ignored."""
        if response.status_code != 206:
            return position
        answered = _RANGE.match(response.headers.get("Content-Range", ""))
        if answered is None or int(answered.group(1)) > position:
            raise RemoteError(
                f"{self.endpoint} sent another part of {self.what} than was asked for",
                hint="try again; if it persists, tell whoever runs that hub",
            )
        return position - int(answered.group(1))


def first(chunks: Iterator[bytes], length: int) -> Iterator[bytes]:
    """At most `length` bytes. An answer of just so many is read to its end, which leaves the
    connection open for the next; a longer one, from a server that ignores ranges, is cut off."""
    for chunk in chunks:
        if length == 0:
            return
        yield chunk[:length]
        length -= len(chunk[:length])


def pause(seconds: float, response: Any) -> None:
    """Wait, longer if the server says how long."""
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    time.sleep(min(max(seconds, float(asked) if asked.isdigit() else 0.0), _LONGEST_PAUSE))
