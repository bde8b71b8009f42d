"""Keep other libraries' chatter off the screen while they work for us."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' and peft's progress bars, advice and deprecation notes.

    Errors still come through, and everything is as it was afterwards.
    """
    from transformers.utils import logging as hf_logging

    level = hf_logging.get_verbosity()
    bars = hf_logging.is_progress_bar_enabled()
    bnb = logging.getLogger("bitsandbytes")
    bnb_level = bnb.level
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    bnb.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)")
            warnings.filterwarnings("ignore", category=UserWarning, module=r"(transformers|peft)")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        hf_logging.set_verbosity(level)
        bnb.setLevel(bnb_level)
        if bars:
            hf_logging.enable_progress_bar()
