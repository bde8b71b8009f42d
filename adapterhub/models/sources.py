"""Where base models come from: a hub id, a folder or a GGUF file, each made a float folder.

Knows nothing of quantization; it hands a folder that transformers can read to whoever stores it.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from adapterhub.errors import (
    DeniedError,
    FormatError,
    NotFoundError,
    UnknownRevisionError,
    UnreachableError,
    UsageError,
)
from adapterhub.hub.remotes import PUBLIC_HUB, default_hub
from adapterhub.models.fingerprint import sha256_file

_HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?")
# Weights in safetensors only: a pickle is never opened, so it is never downloaded either.
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FloatFolder:
    """A transformers folder in float. `content` is set when its weights were converted from a
    file whose bytes identify them; `note` is what a person should know about that."""

    path: Path
    id: str
    revision: str
    content: str | None = None
    note: str | None = None


@contextlib.contextmanager
def open_source(source: str, *, say: Callable[[str], None]) -> Iterator[FloatFolder]:
    """Yield the source as a float folder; a converted one lives as long as the context."""
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise NotFoundError(f"there is no file {path}", hint="check the path")
        with TemporaryDirectory(prefix="adapterhub-gguf-") as out:
            yield _from_gguf(path, Path(out), say=say)
    elif path.is_dir():
        yield FloatFolder(path=path, id=path.resolve().name, revision="local")
    elif match := _HUB_ID.fullmatch(source):
        yield _from_hub(match["id"], match["revision"], say=say)
    else:
        raise _unknown_kind(source)


def _unknown_kind(source: str) -> UsageError:
    return UsageError(
        f"{source!r} is neither a folder, a GGUF file nor a hub id",
        hint="a hub id looks like microsoft/Phi-3-mini-4k-instruct",
    )


def _from_hub(name: str, revision: str | None, *, say: Callable[[str], None]) -> FloatFolder:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    source = f"{name}@{revision}" if revision else name
    endpoint = default_hub().uri
    say(f"downloading {source}")
    try:
        path = snapshot_download(
            name,
            revision=revision,
            allow_patterns=_HUB_FILES,
            endpoint=endpoint,
            token=_hub_token(endpoint),
        )
    except HFValidationError as error:
        raise _unknown_kind(source) from error
    except OSError as error:  # as are all errors of the library that come from the network
        raise _download_failed(error, source) from error
    return FloatFolder(path=Path(path), id=name, revision=Path(path).name)


def _hub_token(endpoint: str) -> str | bool | None:
    """Ours for this endpoint; the public hub alone may also see the login of the `hf` command."""
    from adapterhub.hub.credentials import token_for

    token = token_for(endpoint)
    if token is not None:
        return token.secret
    return None if endpoint == PUBLIC_HUB else False


def _download_failed(error: OSError, source: str) -> NotFoundError | DeniedError | UnreachableError:
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return DeniedError(
            f"{source} is gated: its owner wants you to agree to something first",
            hint="ask for access on its page, then log in: adapterhub remote login hub",
        )
    if isinstance(error, RepositoryNotFoundError):
        return NotFoundError(
            f"the hub has no model {source}, or hides it from you",
            hint="check the name; for a private one, log in: adapterhub remote login hub",
        )
    if isinstance(error, RevisionNotFoundError):
        return UnknownRevisionError(
            f"the hub has no such revision: {source}", hint="name a branch, a tag or a commit"
        )
    return UnreachableError(
        f"{source} could not be downloaded: {first_line(error)}",
        hint="check the network, or give a folder or a GGUF file",
    )


def first_line(error: BaseException) -> str:
    """What another library says, as far as it fits on one line; its name where it says nothing."""
    return next((line for line in str(error).splitlines() if line), type(error).__name__)


def _from_gguf(path: Path, out: Path, *, say: Callable[[str], None]) -> FloatFolder:
    """Dequantize through transformers' own reader, which undoes llama.cpp's permutations."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    say(f"converting {path.name} to float")
    with _readable_gguf(path):
        kind = _gguf_kind(path)
    digest = sha256_file(path)
    with _readable_gguf(path):
        tokenizer = AutoTokenizer.from_pretrained(
            path.parent, gguf_file=path.name, trust_remote_code=False
        )
    # A progress bar that cannot be switched off.
    with _readable_gguf(path), contextlib.redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, trust_remote_code=False
        )
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()
    state = {k: v.contiguous() for k, v in model.state_dict().items() if k not in tied}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    # The config still says "quantized as GGUF", which the float weights beside it no longer are.
    del model.config.quantization_config
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(out)
    model.generation_config.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return FloatFolder(
        path=out,
        id=path.stem,
        revision=f"sha256:{digest}",
        content=digest,
        note=f"the file holds {kind} weights, so storing it in 4 or 8 bits quantizes it twice",
    )


@contextlib.contextmanager
def _readable_gguf(path: Path) -> Iterator[None]:
    """What the readers of a GGUF file raise when it is damaged becomes a FormatError."""
    try:
        yield
    except (ValueError, LookupError, TypeError, RuntimeError) as error:
        raise FormatError(
            f"{path} is not a GGUF file that can be read: {first_line(error)}",
            hint="fetch it again, and compare its sha256 with its publisher's",
        ) from error


def _gguf_kind(path: Path) -> str:
    """The commonest quantized type in the file, such as Q4_1."""
    from collections import Counter

    from gguf import GGUFReader

    types = Counter(
        tensor.tensor_type.name for tensor in GGUFReader(path).tensors if len(tensor.shape) > 1
    )
    if not types:
        raise ValueError("it holds no weights")
    return str(types.most_common(1)[0][0])
