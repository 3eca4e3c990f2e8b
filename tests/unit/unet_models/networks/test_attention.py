"""Attention is that of torch, whatever the length and the precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from unet_models.networks.attention import attend


@pytest.mark.parametrize("others", [16, 700])
@pytest.mark.parametrize("tokens", [64, 600])
def test_attention_is_that_of_torch_whatever_the_length(tokens: int, others: int) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 8) for n in (tokens, others, others))
    expected = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(attend(query, key, value), expected)
    halves = (x.bfloat16() for x in (query, key, value))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = attend(*halves)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.02, rtol=0.05)
