"""The loss under a frozen head in tiles of the vocabulary, beside PyTorch's own from all logits at once."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from snaketune.engines.torch import loss as loss_module
from snaketune.engines.torch.loss import head_loss
from torch.nn import functional


def drawn(num_labels, vocabulary, width, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn((num_labels, width), generator=generator) * scale
    weight = torch.randn((vocabulary, width), generator=generator)
    return hidden, weight, torch.randint(0, vocabulary, (num_labels,), generator=generator)


def whole_loss(hidden, weight, labels):
    """The loss and its gradient at the hidden states by autograd, in float64."""
    hidden = hidden.double().requires_grad_(True)
    loss = functional.cross_entropy(functional.linear(hidden, weight.double()), labels, reduction="sum")
    loss.backward()
    return loss.detach().float(), hidden.grad.float()


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 40), st.integers(2, 1700), st.integers(1, 24), st.sampled_from([0.01, 1.0, 60.0]), st.integers(0, 9)
)
@example(3, 512, 8, 1.0, 0)  # one tile, filled
@example(3, 513, 8, 1.0, 0)  # a last tile of one token
@example(3, 1024, 8, 1.0, 0)
def test_loss_and_gradient_are_those_of_all_logits_whatever_the_vocabulary_is_to_the_tile(
    num_labels, vocabulary, width, scale, seed
):
    hidden, weight, labels = drawn(num_labels, vocabulary, width, scale, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_module, "TILE_BYTES", 1)  # the narrowest tiles
        found = head_loss(hidden, weight, labels, with_gradient=True)
    loss, gradient = whole_loss(hidden, weight, labels)
    torch.testing.assert_close(found.loss, loss, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("labels_in", ["first", "last"])
def test_logits_far_beyond_what_an_exponential_holds_give_a_finite_loss(labels_in):
    hidden, weight, _ = drawn(4, 1300, 8, 1.0, 0)
    labels = torch.full((4,), 0 if labels_in == "first" else 1299)
    hidden, weight = hidden * 1e3, weight.sort(0).values  # the largest logits come in the last tiles
    found = head_loss(hidden, weight, labels, with_gradient=True)
    loss, gradient = whole_loss(hidden, weight, labels)
    torch.testing.assert_close(found.loss, loss, rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("sureness", [0.0, 1.0, 2.0, 4.0])
def test_gradient_of_each_token_is_exact_for_its_logits_however_sure_the_model_is_of_it(dtype, sureness):
    hidden, weight, labels = drawn(24, 1300, 64, 0.3, 3)
    weight = weight.to(dtype)
    hidden = (hidden + sureness * functional.normalize(weight[labels].float())).to(dtype)
    found = head_loss(hidden, weight, labels, with_gradient=True)
    logits = functional.linear(hidden, weight).double()  # as rounded as the model's own are
    expected = torch.softmax(logits, 1)
    expected[torch.arange(24), labels] -= 1
    expected = expected @ weight.double()
    wrong = torch.linalg.vector_norm(found.gradient - expected, dim=1) / torch.linalg.vector_norm(expected, dim=1)
    assert float(wrong.max()) < (1e-4 if dtype == torch.float32 else 1e-2)
    loss = functional.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(found.loss.double(), loss, rtol=1e-4, atol=1e-4)


def test_loss_of_no_label_is_zero_with_a_gradient_of_no_row():
    hidden, weight, labels = drawn(0, 700, 8, 1.0, 0)
    found = head_loss(hidden, weight, labels, with_gradient=True)
    assert float(found.loss) == 0
    assert found.gradient.shape == (0, 8)


def test_loss_alone_is_the_same_as_beside_its_gradient():
    hidden, weight, labels = drawn(9, 1300, 8, 1.0, 5)
    alone = head_loss(hidden, weight, labels, with_gradient=False)
    assert alone.gradient is None
    assert torch.equal(alone.loss, head_loss(hidden, weight, labels, with_gradient=True).loss)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_loss_of_states_that_are_not_finite_is_not_finite(wrong):
    hidden, weight, labels = drawn(3, 1300, 8, 1.0, 0)
    hidden[1, 2] = wrong
    assert not bool(torch.isfinite(head_loss(hidden, weight, labels, with_gradient=True).loss))
