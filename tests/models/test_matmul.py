"""Inside `fast_matmul` products are the same numbers, done by oneDNN where that is meant to be."""

import pytest
import torch
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from edgewise.models import matmul
from edgewise.models.matmul import fast_matmul

pytestmark = pytest.mark.skipif(matmul._LINEAR is None, reason="this PyTorch comes without oneDNN")

ROWS, INNER, OUTER = 64, 96, 128  # 786,432 multiplications, three times the least that makes the detour


@pytest.fixture
def detours(monkeypatch):
    """The shapes of what oneDNN was given to multiply."""
    shapes, linear = [], matmul._LINEAR

    def counting(x, weight, *rest):
        # It multiplies others right too, a thousand times more slowly.
        assert x.is_contiguous()
        assert weight.is_contiguous() or weight.T.is_contiguous()
        shapes.append((tuple(x.shape), tuple(weight.shape)))
        return linear(x, weight, *rest)

    monkeypatch.setattr(matmul, "_LINEAR", counting)
    return shapes


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


X, W, B = random(ROWS, INNER), random(INNER, OUTER, seed=1), random(OUTER, seed=2)


def module(made, weight):
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(B)
    return made.requires_grad_(False)


LINEAR, CONV = module(torch.nn.Linear(INNER, OUTER), W.T), module(Conv1D(OUTER, INNER), W)

PRODUCTS = {
    "linear": lambda x: functional.linear(x, W.T),
    "linear with a bias": lambda x: functional.linear(x, W.T, B),
    "linear with a bias by name": lambda x: functional.linear(x, weight=W.T, bias=B),
    "matmul": lambda x: torch.matmul(x, W),
    "the method matmul": lambda x: x.matmul(W),
    "@": lambda x: x @ W,
    "a Linear module": LINEAR,
    "a Conv1D module": CONV,
}
ON_MATRICES = {"mm": lambda x: torch.mm(x, W), "addmm": lambda x: torch.addmm(B, x, W)}


def close(found, wanted):
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    assert wanted.abs().max() > 1
    return bool((found - wanted).abs().max() <= 1e-5 * wanted.abs().max())


@pytest.mark.parametrize("product", [*PRODUCTS, *ON_MATRICES])
def test_a_product_is_the_same_number(product, detours):
    compute = {**PRODUCTS, **ON_MATRICES}[product]
    wanted = compute(X)
    assert not detours
    with fast_matmul():
        found = compute(X)
    assert close(found, wanted)
    assert detours == [((ROWS, INNER), (OUTER, INNER))]
    assert torch.equal(compute(X), wanted), "outside, nothing has changed"
    assert len(detours) == 1


@pytest.mark.parametrize("product", PRODUCTS)
def test_more_dimensions_before_the_last_are_rows(product, detours):
    x = X.view(4, 2, 8, INNER)
    with fast_matmul():
        found = PRODUCTS[product](x)
    assert close(found, PRODUCTS[product](x))
    assert len(detours) == 1


WIDE = random(INNER, 4 * OUTER, seed=3)
STRIDED_WEIGHTS = {
    "transposed": random(OUTER, INNER, seed=3).T,
    "some columns": WIDE[:, OUTER : 2 * OUTER],
    "every fourth column": WIDE[:, ::4],
    "one head of several": WIDE.unflatten(1, (4, OUTER)).transpose(0, 1)[2],
    "some rows": random(2 * INNER, OUTER, seed=3)[INNER:],
    "one row for all": random(1, OUTER, seed=3).expand(INNER, OUTER),
}
STRIDED_INPUTS = {
    "transposed": random(INNER, ROWS, seed=4).T,
    "some columns": random(ROWS, 2 * INNER, seed=4)[:, INNER:],
    "every other row": random(2 * ROWS, INNER, seed=4)[::2],
    "the same row for all": random(1, INNER, seed=4).expand(ROWS, INNER),
    "one of several heads": random(8, 8, 4, INNER, seed=4)[:, :, 1],
    "permuted": random(8, INNER, 8, seed=4).permute(2, 0, 1),
}


@pytest.mark.parametrize("weight", STRIDED_WEIGHTS)
@pytest.mark.parametrize("x", STRIDED_INPUTS)
def test_views_of_larger_tensors_are_multiplied_right(weight, x, detours):
    x, weight = STRIDED_INPUTS[x], STRIDED_WEIGHTS[weight]
    with fast_matmul():
        found = (x @ weight, functional.linear(x, weight.T), functional.linear(x, weight.T, B))
    assert len(detours) == 3
    exact = (x.double() @ weight.double()).float()
    assert close(found[0], exact)
    assert close(found[1], exact)
    assert close(found[2], exact + B)


def test_the_smallest_product_that_makes_the_detour_has_as_many_multiplications_as_it_says(detours):
    inner, outer = 64, matmul._SMALLEST // (64 * 32)
    with fast_matmul():
        assert torch.equal(random(31, inner) @ random(inner, outer), torch.mm(random(31, inner), random(inner, outer)))
        assert not detours
        assert close(random(32, inner) @ random(inner, outer), random(32, inner) @ random(inner, outer))
        assert len(detours) == 2


LEFT_ALONE = {
    "float64": lambda: X.double() @ W.double(),
    "bfloat16": lambda: functional.linear(X.bfloat16(), W.T.bfloat16()),
    "a vector times a matrix": lambda: random(600) @ random(600, 600),
    "a matrix times a vector": lambda: random(600, 600) @ random(600),
    "matrices one by one": lambda: random(8, ROWS, INNER) @ random(8, INNER, OUTER),
    "the same matrix for a batch": lambda: torch.matmul(X, random(8, INNER, OUTER)),
    "a small one": lambda: X[:4] @ W[:, :4],
    "nothing": lambda: X[:0] @ W,
    "a scaled sum": lambda: torch.addmm(B, X, W, beta=0.5, alpha=2),
    "a matrix to add": lambda: torch.addmm(random(ROWS, OUTER), X, W),
    "a given place for the result": lambda: torch.mm(X, W, out=torch.empty(ROWS, OUTER)),
}


@pytest.mark.parametrize("product", LEFT_ALONE)
def test_other_products_are_left_alone(product, detours):
    with fast_matmul():
        found = LEFT_ALONE[product]()
    assert not detours
    assert torch.equal(found, LEFT_ALONE[product]())


@pytest.mark.parametrize("wanted", ["x", "weight", "bias"])
def test_where_gradients_are_wanted_they_are_those_of_a_plain_product(wanted, detours):
    def gradient():
        given = {"x": X.clone(), "weight": W.T.clone(), "bias": B.clone()}
        given[wanted].requires_grad_()
        out = functional.linear(given["x"], given["weight"], given["bias"])
        out.square().sum().backward()
        return given[wanted].grad

    with fast_matmul():
        found = gradient()
    assert not detours
    assert torch.equal(found, gradient())


def test_without_gradients_parameters_make_the_detour(detours):
    layer = torch.nn.Linear(INNER, OUTER)
    assert layer.weight.requires_grad
    with torch.no_grad(), fast_matmul():
        found = layer(X)
    assert close(found, layer(X).detach())
    assert len(detours) == 1


NAMED = {
    "linear": lambda: functional.linear(input=X, weight=W.T),
    "matmul": lambda: torch.matmul(input=X, other=W),
    "the method matmul": lambda: X.matmul(other=W),
    "mm": lambda: torch.mm(input=X, mat2=W),
    "addmm": lambda: torch.addmm(input=B, mat1=X, mat2=W),
}


@pytest.mark.parametrize("product", NAMED)
def test_arguments_may_be_given_by_name(product):
    with fast_matmul():
        found = NAMED[product]()
    assert close(found, NAMED[product]())


BIASES = {
    "every other number of a tensor": random(2 * OUTER, seed=5)[::2],
    "one number for all": random(2 * OUTER, seed=5)[:1],
    "a scalar": random(2 * OUTER, seed=5)[0],
    "one for each row": random(ROWS, OUTER, seed=5),
    "a single row": random(1, OUTER, seed=5),
}


@pytest.mark.parametrize("bias", BIASES)
def test_any_bias_that_pytorch_takes_is_added_right(bias):
    with fast_matmul():
        found = functional.linear(X, W.T, BIASES[bias])
    assert close(found, X @ W + BIASES[bias])


def test_shapes_that_do_not_fit_are_still_an_error():
    for compute in (
        lambda: X @ W.T,
        lambda: functional.linear(X, W),
        lambda: functional.linear(X, W.T, random(OUTER - 1)),
    ):
        with pytest.raises(RuntimeError), fast_matmul():
            compute()
        with pytest.raises(RuntimeError):
            compute()


def test_it_may_be_entered_twice(detours):
    with fast_matmul():
        with fast_matmul():
            inner = X @ W
        outer = X @ W
    assert torch.equal(inner, outer)
    assert len(detours) == 2
    assert close(X @ W, inner)
    assert len(detours) == 2
