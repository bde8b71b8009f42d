"""The arithmetic of distillation, held to a float64 reference written out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from adapterhub.errors import UsageError
from adapterhub_plugins.distill.options import read_options

pytestmark = pytest.mark.models

TOKENS, VOCABULARY = 7, 11


def logits(seed: int, *, tokens: int = TOKENS, vocabulary: int = VOCABULARY) -> Any:
    import torch

    return 2 * torch.randn(tokens, vocabulary, generator=torch.Generator().manual_seed(seed))


def probabilities(scores: Any, temperature: float) -> Any:
    """In numpy, by the definition."""
    import numpy as np

    raised = np.exp(scores.double().numpy() / temperature)
    return raised / raised.sum(axis=1, keepdims=True)


def reference(kind: str, student: Any, teacher: Any, *, T: float, beta: float) -> float:
    import numpy as np

    q, p = probabilities(student, T), probabilities(teacher, T)

    def kl(a: Any, b: Any) -> float:
        return float((a * np.log(a / b)).sum())

    m = beta * p + (1 - beta) * q
    found = {
        "forward": kl(p, q),
        "reverse": kl(q, p),
        "js": beta * kl(p, m) + (1 - beta) * kl(q, m),
    }
    return T * T * found[kind]


# --- divergences ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["forward", "reverse", "js"])
@pytest.mark.parametrize(("T", "beta"), [(1.0, 0.5), (2.0, 0.1), (0.5, 0.9)])
def test_each_divergence_is_what_its_definition_says(kind: str, T: float, beta: float) -> None:
    from adapterhub_plugins.distill.losses import divergence

    options = read_options({"divergence": kind, "temperature": T, "beta": beta})
    student, teacher = logits(0), logits(1)
    expected = reference(kind, student, teacher, T=T, beta=beta)
    assert float(divergence(options)(student, teacher)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["forward", "reverse", "js"])
def test_a_student_that_says_what_its_teacher_says_is_left_alone(kind: str) -> None:
    from adapterhub_plugins.distill.losses import divergence

    student = logits(0).requires_grad_()
    # What is added to all logits alike means nothing.
    loss: Any = divergence(read_options({"divergence": kind}))(student, student.detach() + 3)
    loss.backward()
    assert abs(float(loss.detach())) < 1e-4
    assert student.grad.abs().max() < 1e-6


def test_js_leans_to_forward_and_to_reverse_at_its_ends() -> None:
    from adapterhub_plugins.distill.losses import divergence

    student, teacher = logits(0), logits(1)

    def js(beta: float) -> float:
        return float(divergence(read_options({"divergence": "js", "beta": beta}))(student, teacher))

    forward = divergence(read_options({}))(student, teacher)
    reverse = divergence(read_options({"divergence": "reverse"}))(student, teacher)
    assert js(0.01) / 0.01 == pytest.approx(float(forward), rel=0.1)
    assert js(0.99) / 0.01 == pytest.approx(float(reverse), rel=0.1)


@pytest.mark.parametrize(("ours", "theirs"), [(11, 11), (11, 17), (17, 11)])
def test_the_sorted_distance_compares_probabilities_by_rank(ours: int, theirs: int) -> None:
    import numpy as np

    from adapterhub_plugins.distill.losses import sorted_distance

    student, teacher = logits(0, vocabulary=ours), logits(1, vocabulary=theirs)
    q, p = (-np.sort(-probabilities(side, 1.0)) for side in (student, teacher))
    q, p = (np.pad(side, ((0, 0), (0, 17 - side.shape[1]))) for side in (q, p))
    found = sorted_distance(read_options({"align": True}))(student, teacher)
    assert float(found) == pytest.approx(float(np.abs(p - q).sum()), rel=1e-5)


def test_a_permuted_vocabulary_is_no_distance() -> None:
    from adapterhub_plugins.distill.losses import sorted_distance

    student = logits(0)
    found = sorted_distance(read_options({"align": True}))(student, student.flip(dims=(1,)))
    assert float(found) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("cells", [1, 3 * VOCABULARY, 10**6])
def test_chunks_change_neither_the_loss_nor_its_gradient(cells: int) -> None:
    from adapterhub_plugins.distill.losses import divergence, in_chunks

    loss: Any = divergence(read_options({}))
    teacher, whole, parts = logits(1), logits(0).requires_grad_(), logits(0).requires_grad_()
    loss(whole, teacher).backward()
    found: Any = in_chunks(loss, parts, teacher, cells=cells)
    found.backward()
    assert float(found.detach()) == pytest.approx(float(loss(whole, teacher).detach()), rel=1e-6)
    assert (whole.grad - parts.grad).abs().max() < 1e-6


def test_chunks_bound_what_is_kept_for_the_backward_pass() -> None:
    import torch

    from adapterhub_plugins.distill.losses import divergence, in_chunks

    kept = 0

    def pack(tensor: Any) -> Any:
        nonlocal kept
        if tensor.untyped_storage().data_ptr() not in given:
            kept += tensor.numel()
        return tensor

    student = logits(0, tokens=64, vocabulary=100).requires_grad_()
    teacher = logits(1, tokens=64, vocabulary=100)
    given = {part.untyped_storage().data_ptr() for part in (student, teacher)}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        in_chunks(divergence(read_options({})), student, teacher, cells=400)
    assert kept < 64 * 100


def test_half_precision_logits_are_compared_in_float32() -> None:
    import torch

    from adapterhub_plugins.distill.losses import divergence

    student, teacher = logits(0).bfloat16(), logits(1).bfloat16()
    found = divergence(read_options({}))(student, teacher)
    expected = reference("forward", student.float(), teacher.float(), T=2.0, beta=0.5)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(expected, rel=1e-5)


# --- samples ----------------------------------------------------------------------------------


def estimates(rounds: int, *, samples: int) -> tuple[Any, Any]:
    """(gradient of the full divergence, the mean gradient that `rounds` sets of samples give)."""
    import torch

    from adapterhub_plugins.distill.losses import divergence, sampled_divergence
    from adapterhub_plugins.distill.samples import draw, side_by_side

    options, teacher = read_options({"samples": samples, "cache": True}), logits(1)
    student = logits(0).requires_grad_()
    full = divergence(options)(student, teacher)
    (exact,) = torch.autograd.grad(full, student)
    generator, total = torch.Generator().manual_seed(5), torch.zeros_like(exact)
    losses = []
    for _ in range(rounds):
        drawn = draw(teacher, samples=samples, temperature=options.temperature, generator=generator)
        loss = sampled_divergence(options)(student, *side_by_side(drawn, device="cpu"))
        total += torch.autograd.grad(loss, student)[0]
        losses.append(float(loss.detach()))
    assert sum(losses) / rounds == pytest.approx(float(full.detach()), rel=0.05)
    return exact, total / rounds


def test_samples_give_the_right_gradient_on_average() -> None:
    exact, few = estimates(20, samples=4)
    _, many = estimates(2000, samples=4)
    assert (many - exact).norm() < 0.03 * exact.norm()
    # An error that falls as one over the root of the number of draws has no fixed part.
    assert (many - exact).norm() < 0.25 * (few - exact).norm()


def test_the_most_probable_tokens_alone_give_a_gradient_that_no_number_mends() -> None:
    import torch

    options, teacher = read_options({}), logits(1)
    T = options.temperature
    student = logits(0).requires_grad_()
    p = (teacher / T).softmax(dim=-1)
    top = p.topk(4, dim=-1)
    weights = top.values / top.values.sum(dim=-1, keepdim=True)
    log_q = (student / T).log_softmax(dim=-1)
    (biased,) = torch.autograd.grad(
        -T * T * (weights * log_q.gather(1, top.indices)).sum(), student
    )
    (exact,) = torch.autograd.grad(
        T * T * (p * (p.log() - (student / T).log_softmax(dim=-1))).sum(), student
    )
    assert (biased - exact).norm() > 0.2 * exact.norm()


def test_parts_of_the_samples_put_together_are_the_samples() -> None:
    import torch

    from adapterhub_plugins.distill.samples import draw, joined, side_by_side

    whole = draw(logits(1), samples=8, temperature=1.0, generator=torch.Generator().manual_seed(0))
    again = joined([whole.part(0, 3), whole.part(3, 4), whole.part(4, TOKENS)])
    for one, other in zip(
        side_by_side(whole, device="cpu"), side_by_side(again, device="cpu"), strict=True
    ):
        assert torch.equal(one, other)
    assert torch.allclose(side_by_side(whole, device="cpu")[1].sum(dim=1), torch.ones(TOKENS))


# --- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temprature": 2}, "no option 'temprature'"),
        ({"temperature": 0}, "temperature=0 makes no sense"),
        ({"temperature": float("nan")}, "makes no sense"),
        ({"temperature": True}, "makes no sense"),
        ({"hard": 1.5}, r"hard=1\.5 makes no sense"),
        ({"beta": 0}, "beta=0 makes no sense"),
        ({"divergence": "kl"}, "no divergence 'kl'"),
        ({"align": "yes"}, "neither true nor false"),
        ({"align": True, "hard": 0}, "teaches no answer"),
        ({"align": True, "cache": True}, "sorted probabilities"),
        ({"align": True, "divergence": "js"}, "sorted probabilities"),
        ({"cache": True, "divergence": "reverse"}, "cannot be had from a cache"),
        ({"cache": ""}, "no place"),
        ({"samples": 0}, "teach nothing"),
        ({"samples": 2.5}, "no whole number"),
        ({"seed": 10**20}, "seed"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_options(options)
    assert caught.value.hint
