"""Promises of a method about use: caches and padding, half precision, other devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapterhub.models.loader import Base
from adapterhub.models.quiet import quiet
from adapterhub.testing import plain
from adapterhub.testing.ground import Ground, agree, heard
from adapterhub.testing.promises import promise
from adapterhub.testing.tiny import add_tiny_base

NEW_TOKENS = 6


class Running(Ground):
    @promise(tensors=True)
    def test_generating_with_a_cache_answers_as_whole_passes(self, base: Base) -> None:
        """Greedy, two prompts of different length padded on the left."""
        import torch

        self.attach_shaken(base).activate()
        long, short = (plain.fixed_ids(base.model, rows=1, length=n)[0] for n in (9, 5))
        made = _generate(base, [long, short])
        for row, prompt in enumerate((long, short)):
            new = made.sequences[row, -NEW_TOKENS:]
            whole = torch.cat([prompt, new[:-1]])[None]
            with torch.inference_mode():
                logits = base.model(input_ids=whole, use_cache=False).logits[0]
            stepwise = torch.stack(made.logits)[:, row]
            expected = logits[len(prompt) - 1 :]
            agree(stepwise, expected, within=1e-4, what=f"with a cache, row {row}")

    @promise(tensors=True)
    def test_it_follows_a_half_precision_base(self, dense: Base) -> None:
        import torch

        adapter = self.attach_shaken(dense)
        adapter.activate()
        exact = heard(dense, adapter)
        adapter.deactivate()
        state, config = adapter.state(), adapter.config
        adapter.detach()
        dense.model.bfloat16()
        again = self.attach(dense, state=state, config=config)
        again.activate()
        found = plain.logits_of(dense.model)
        assert found.dtype is torch.bfloat16, f"the base answers in {found.dtype}"
        agree(heard(dense, again), exact, within=0.1, what="in bfloat16 and in float32")

    def test_it_works_on_every_device(self, place: tuple[str, str], home: Path, base: Base) -> None:
        adapter = self.attach_shaken(base)
        adapter.activate()
        here = heard(base, adapter)
        for device in _devices():
            other = add_tiny_base(*place, home, dense=False, device=device)
            again = self.attach(other, state=adapter.state(), config=adapter.config)
            for name, tensor in again.parameters().items():
                assert tensor.device.type == device, f"{name} is on {tensor.device}"
            again.activate()
            within = 1e-6 if device == "cpu" else 0.1  # elsewhere a base is in bfloat16
            agree(heard(other, again).cpu(), here, within=within, what=f"{device} and cpu")


def _devices() -> list[str]:
    import torch

    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def _generate(base: Base, prompts: list[Any]) -> Any:
    import torch

    width, pad = max(map(len, prompts)), base.tokenizer.pad_token_id
    ids = torch.full((len(prompts), width), pad, device=base.model.device)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = prompt
    mask = (torch.arange(width) >= width - torch.tensor([[len(p)] for p in prompts])).long()
    with quiet(), torch.inference_mode():
        return base.model.generate(
            input_ids=ids,
            attention_mask=mask.to(ids.device),
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=pad,
            return_dict_in_generate=True,
            output_logits=True,
        )
