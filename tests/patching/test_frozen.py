"""Norms that keep the scale of one point."""

import pytest
import torch

from edgewise.patching.frozen import Frozen


class ByHand(torch.nn.Module):
    """A norm whose root is written as one, with a bias."""

    def forward(self, x):
        return x / (x.square().mean(dim=-1, keepdim=True) + 1e-3).sqrt() + 2


@pytest.mark.parametrize(
    "norm",
    [torch.nn.LayerNorm(6), torch.nn.RMSNorm(6), torch.nn.LayerNorm(6, elementwise_affine=False), ByHand()],
    ids=["layer", "root mean square", "without weights", "by hand"],
)
def test_a_frozen_norm_is_affine_and_itself_at_its_point(norm):
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 4, 6)
    frozen = Frozen(norm, x)
    assert torch.allclose(frozen.value, norm(x), atol=1e-6)
    assert torch.allclose(frozen(x), frozen.value, atol=1e-6)
    assert torch.allclose(frozen.part(x) + frozen.offset, frozen.value, atol=1e-5)
    assert torch.allclose(frozen.part(y) + frozen.part(x - y), frozen.part(x), atol=1e-5)
    assert not torch.allclose(frozen(y), norm(y), atol=0.1)
