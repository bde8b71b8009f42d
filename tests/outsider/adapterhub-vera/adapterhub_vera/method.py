"""VeRA (arXiv 2310.11454): y + b * B (d * A x) where the base answers y to x.

A (rank, in) and B (out, rank) are random, never trained and never stored: the config holds the
seed they are drawn from. Layers that read the same width share one A, those that answer the same
width share one B. Trained and stored are d (rank,) and b (out,) of each layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from math import prod, sqrt
from typing import Any

from adapterhub.domain.attached import SiteAdapter, check_keys, check_state
from adapterhub.domain.base import BaseSpec
from adapterhub.domain.options import number, refuse_unknown, whole
from adapterhub.domain.patch import Affine, Patch
from adapterhub.domain.protocols import LoadedBase
from adapterhub.domain.seed import check_seed
from adapterhub.domain.sites import Handle, Site
from adapterhub.domain.stored_modules import (
    check_blocks,
    check_parts,
    check_targets,
    stored_modules,
)
from adapterhub.domain.targets import family_targets
from adapterhub.errors import CapabilityError, MismatchError, UsageError
from adapterhub_vera import OPTIONS

NAME = "vera"
KEYS = ("method", "base_model_name_or_path", "in_features")
REQUIRED = {
    "target_modules": list[str],
    "r": int,
    "d_initial": float,
    "projection_prng_key": int,
}


class Vera:
    """`adapterhub.domain.protocols.AdapterMethod`.

    `in_features`, how wide the input of each layer is, is written by `attach`, the first to know:
    neither b nor d tell it, and `patches` cannot draw A without it.
    """

    def new_config(self, base: BaseSpec, options: Mapping[str, Any]) -> dict[str, Any]:
        refuse_unknown(NAME, options, OPTIONS)
        targets = options.get("targets", "all-linear")
        if not isinstance(targets, str) or not targets.strip(" ,"):
            raise UsageError(f"targets {targets!r} name no layers", hint="all-linear is usual")
        seed = whole(options, "projection_seed", 0, least=0, most=2**63 - 1)
        check_seed(seed)
        return {
            "method": NAME,
            "base_model_name_or_path": base.id,
            "target_modules": list(family_targets(base.family, targets)),
            "r": whole(options, "rank", 64, least=1, most=65536),
            "d_initial": number(options, "d_initial", 0.1, least=1e-6),
            "projection_prng_key": seed,
        }

    def attach(
        self,
        base: LoadedBase,
        slot: str,
        config: Mapping[str, Any],
        *,
        state: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> AttachedVera:
        """Every b starts at zero and every d at `d_initial`, so `seed` decides nothing: what is
        random is drawn from the config's own seed, which the stored adapter needs again."""
        check(config)
        sites = chosen(base, config)
        widths = {name: site.shape[1] for name, site in sites.items()}
        if config.get("in_features", widths) != widths:
            raise MismatchError(
                f"the layers of {base.spec.name} are not as wide as those of this vera adapter",
                hint="the adapter was made for another base",
            )
        if state is not None:
            expected: dict[str, tuple[int, ...]] = {}
            for name, site in sites.items():
                expected[f"{name}.vera_b"] = (site.shape[0],)
                expected[f"{name}.vera_d"] = (config["r"],)
            check_state(state, expected)
        return AttachedVera(base, slot, {**config, "in_features": widths}, sites=sites, state=state)

    def patches(
        self,
        config: Mapping[str, Any],
        state: Mapping[str, Any],
        base: LoadedBase | None = None,
    ) -> Iterator[tuple[str, Patch]]:
        self.check_tensors(config, state)
        widths = config.get("in_features")
        if widths is None and base is not None:
            widths = {name: site.shape[1] for name, site in chosen(base, config).items()}
        if widths is None:
            raise CapabilityError(
                "this vera adapter does not say how wide its layers are",
                hint="attach it to its base first",
            )
        for name in sorted(widths):
            b, d = state[f"{name}.vera_b"], state[f"{name}.vera_d"]
            down, up = (
                matrix.to(b.device)
                for matrix in (
                    matrix_a(config["projection_prng_key"], config["r"], widths[name]),
                    matrix_b(config["projection_prng_key"], config["r"], len(b)),
                )
            )
            yield name, Affine(A=d[:, None] * down, B=b[:, None] * up)

    def check_tensors(
        self, config: Mapping[str, Any], tensors: Mapping[str, Any], *, family: str | None = None
    ) -> None:
        """Whether the file holds b and d of every layer that the config is about."""
        check(config)
        modules = stored_modules(NAME, tensors, ["vera_b", "vera_d"])
        check_parts(modules, ["vera_b", "vera_d"])
        check_targets(modules, config["target_modules"])
        check_blocks(modules, family=family)
        if modules.keys() != config.get("in_features", modules).keys():
            raise MismatchError(
                "in_features of the config is about other layers than the file",
                hint="the config was edited; ask its author for a whole one",
            )
        expected: dict[str, tuple[int, ...]] = {}
        for name, parts in modules.items():
            expected[f"{name}.vera_b"] = (prod(parts["vera_b"].shape),)
            expected[f"{name}.vera_d"] = (config["r"],)
        check_state(tensors, expected)


class AttachedVera(SiteAdapter):
    method = NAME
    per_row = True

    def __init__(
        self,
        base: LoadedBase,
        slot: str,
        config: Mapping[str, Any],
        *,
        sites: Mapping[str, Site],
        state: Mapping[str, Any] | None,
    ) -> None:
        import torch

        super().__init__(base, slot, config)
        self._sites = sites
        self._vectors: dict[str, Any] = {}
        self._a: dict[int, Any] = {}
        self._b: dict[int, Any] = {}
        key, rank = config["projection_prng_key"], config["r"]
        for name, site in sites.items():
            out, width = site.shape
            if width not in self._a:
                self._a[width] = matrix_a(key, rank, width).to(base.device)
            if out not in self._b:
                self._b[out] = matrix_b(key, rank, out).to(base.device)
            start = {
                f"{name}.vera_b": torch.zeros(out),
                f"{name}.vera_d": torch.full((rank,), float(config["d_initial"])),
            }
            for key_, value in (start if state is None else {k: state[k] for k in start}).items():
                own = value.to(base.device, torch.float32, copy=True)
                self._vectors[key_] = torch.nn.Parameter(own, requires_grad=False)

    def parameters(self) -> Mapping[str, Any]:
        return self._vectors

    def changes(self, weight: Any) -> Iterator[Handle]:
        for name, site in self._sites.items():
            out, width = site.shape
            change = partial(
                added,
                b=self._vectors[f"{name}.vera_b"],
                d=self._vectors[f"{name}.vera_d"],
                down=self._a[width],
                up=self._b[out],
                weight=weight,
            )
            yield site.add_to_output(change)


def added(x: Any, y: Any, *, b: Any, d: Any, down: Any, up: Any, weight: Any) -> Any:
    """What is added to y, which the base answered for x; `weight` may have a value for each row."""
    from torch.nn.functional import linear

    return weight * (b * linear(d * linear(x.to(down.dtype), down), up))


def matrix_a(seed: int, rank: int, width: int) -> Any:
    return drawn(f"{NAME} A {seed} {rank} {width}", rank, width)


def matrix_b(seed: int, rank: int, out: int) -> Any:
    return drawn(f"{NAME} B {seed} {rank} {out}", out, rank)


@lru_cache(maxsize=16)
def drawn(what: str, rows: int, columns: int) -> Any:
    """Kaiming-uniform (rows, columns), the same for the same `what`, always drawn on the CPU."""
    from hashlib import sha256

    import torch

    number = int.from_bytes(sha256(what.encode()).digest()[:8], "big") >> 1
    generator = torch.Generator().manual_seed(number)
    bound = sqrt(6 / columns)
    return torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)


def check(config: Mapping[str, Any]) -> None:
    """Raises MismatchError or FormatError for a stored config that is none of this method's."""
    widths = {"in_features": dict[str, int]} if "in_features" in config else {}
    check_keys(NAME, config, KEYS, required={**REQUIRED, **widths})
    if config["r"] < 1:
        raise MismatchError(f"r {config['r']} is no rank", hint="ask its author for a whole one")
    check_seed(config["projection_prng_key"])


def chosen(base: LoadedBase, config: Mapping[str, Any]) -> dict[str, Site]:
    """The linear layers that the config names. Raises MismatchError where there is none."""
    endings = tuple(f".{target}" for target in config["target_modules"])
    found = {
        name: site for name, site in base.sites("linear").items() if f".{name}".endswith(endings)
    }
    if not found:
        raise MismatchError(
            f"{base.spec.name} has no layer called {' or '.join(config['target_modules'])}",
            hint="the adapter was made for another base",
        )
    return found
