"""The FID Inception on random weights: its published shape, its names and its pools."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unet_models.networks.inception import ConvNormReLU, FIDInception

BLOCKS = {
    "Mixed_5b": "1x1 5x5_1 5x5_2 3x3dbl_1 3x3dbl_2 3x3dbl_3 _pool",
    "Mixed_6a": "3x3 3x3dbl_1 3x3dbl_2 3x3dbl_3",
    "Mixed_6b": "1x1 7x7_1 7x7_2 7x7_3 7x7dbl_1 7x7dbl_2 7x7dbl_3 7x7dbl_4 7x7dbl_5 _pool",
    "Mixed_7a": "3x3_1 3x3_2 7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4",
    "Mixed_7b": "1x1 3x3_1 3x3_2a 3x3_2b 3x3dbl_1 3x3dbl_2 3x3dbl_3a 3x3dbl_3b _pool",
}
TWINS = {"Mixed_5b": "5c 5d", "Mixed_6a": "", "Mixed_6b": "6c 6d 6e", "Mixed_7a": "", "Mixed_7b": "7c"}
STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def test_number_of_parameters():
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in FIDInception().parameters())
    # Published for torchvision's: 27,161,264; its auxiliary head has 3,326,696; 8 more classes of 2048 weights and 1.
    assert count == 27_161_264 - 3_326_696 + 8 * 2049


def test_tensors_have_the_names_of_the_file(inception: FIDInception):
    convs = list(STEM)
    for block, branches in BLOCKS.items():
        for twin in (block, *(f"Mixed_{name}" for name in TWINS[block].split())):
            convs += [f"{twin}.branch{branch}" for branch in branches.split()]
    names = {f"{conv}.conv.weight" for conv in convs}
    names |= {f"{conv}.bn.{name}" for conv in convs for name in BATCH_NORM}
    assert len(convs) == 94
    assert set(inception.state_dict()) == names | {"fc.weight", "fc.bias"}
    assert inception.fc.weight.shape == (1008, 2048)


@pytest.mark.parametrize(
    ("name", "kernels", "hidden"),
    [
        ("Mixed_5b", "1x1 1x1 5x5 1x1 3x3 3x3 1x1", [64, 48, 64, 64, 96, 96, 32]),
        ("Mixed_6a", "3x3 1x1 3x3 3x3", [384, 64, 96, 96]),
        *(
            (f"Mixed_6{letter}", "1x1 1x1 1x7 7x1 1x1 7x1 1x7 7x1 1x7 1x1", [192, c, c, 192, c, c, c, c, 192, 192])
            for letter, c in zip("bcde", (128, 160, 160, 192), strict=True)
        ),
        ("Mixed_7a", "1x1 3x3 1x1 1x7 7x1 3x3", [192, 320, 192, 192, 192, 192]),
        ("Mixed_7b", "1x1 1x1 1x3 3x1 1x1 3x3 1x3 3x1 1x1", [320, 384, 384, 384, 448, 384, 384, 384, 192]),
    ],
)
def test_convolutions_have_the_shapes_of_the_file(inception: FIDInception, name: str, kernels: str, hidden: list[int]):
    table = next(BLOCKS[block] for block in BLOCKS if block[:7] == name[:7] and (block[-1] == "a") == (name[-1] == "a"))
    shapes = [inception.state_dict()[f"{name}.branch{branch}.conv.weight"].shape for branch in table.split()]
    assert " ".join(f"{shape[2]}x{shape[3]}" for shape in shapes) == kernels
    assert [shape[0] for shape in shapes] == hidden


def test_maps_have_the_sizes_of_the_paper(inception: FIDInception):
    sizes = {}
    hooks = [
        module.register_forward_hook(lambda _m, _x, y, name=name: sizes.update({name: tuple(y.shape[1:])}))
        for name, module in inception.named_children()
    ]
    inception(torch.zeros(1, 3, 299, 299))
    for hook in hooks:
        hook.remove()
    assert sizes == {
        "Conv2d_1a_3x3": (32, 149, 149),
        "Conv2d_2a_3x3": (32, 147, 147),
        "Conv2d_2b_3x3": (64, 147, 147),
        "Conv2d_3b_1x1": (80, 73, 73),
        "Conv2d_4a_3x3": (192, 71, 71),
        "Mixed_5b": (256, 35, 35),
        "Mixed_5c": (288, 35, 35),
        "Mixed_5d": (288, 35, 35),
        **{f"Mixed_6{letter}": (768, 17, 17) for letter in "abcde"},
        "Mixed_7a": (1280, 8, 8),
        "Mixed_7b": (2048, 8, 8),
        "Mixed_7c": (2048, 8, 8),
    }


@pytest.mark.parametrize(
    ("name", "channels", "pool"),
    [
        *((f"Mixed_5{letter}", channels, "average") for letter, channels in zip("bcd", (192, 256, 288), strict=True)),
        *((f"Mixed_6{letter}", 768, "average") for letter in "bcde"),
        ("Mixed_7b", 1280, "average"),
        ("Mixed_7c", 2048, "max"),
    ],
)
def test_pools_worked_out_by_hand(inception: FIDInception, name: str, channels: int, pool: str):
    block = inception.get_submodule(name)
    seen: list[Tensor] = []
    hook = block.get_submodule("branch_pool").register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    image = torch.tensor([[36.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, -18]])
    block(image.expand(1, channels, 3, 4))
    hook.remove()
    averages = [[9.0, 6, 0, 0], [6, 4, -2, -3], [0, 0, -3, -4.5]]  # over the 4, 6 or 9 pixels that exist
    maxima = [[36.0, 36, 0, 0], [36, 36, 0, 0], [0, 0, 0, 0]]  # padding never wins
    expected = torch.tensor(averages if pool == "average" else maxima)
    torch.testing.assert_close(seen[0][0], expected.expand(channels, 3, 4))


@pytest.mark.parametrize("name", ["Mixed_5b", "Mixed_6a", "Mixed_6b", "Mixed_7a", "Mixed_7b"])
def test_branches_are_joined_in_the_order_of_the_graph(name: str, inception: FIDInception):
    ends = {
        "Mixed_5b": ["1x1", "5x5_2", "3x3dbl_3", "_pool"],
        "Mixed_6a": ["3x3", "3x3dbl_3"],
        "Mixed_6b": ["1x1", "7x7_3", "7x7dbl_5", "_pool"],
        "Mixed_7a": ["3x3_2", "7x7x3_4"],
        "Mixed_7b": ["1x1", "3x3_2a", "3x3_2b", "3x3dbl_3a", "3x3dbl_3b", "_pool"],
    }[name]
    block = inception.get_submodule(name)
    seen: dict[str, Tensor] = {}
    hooks = [
        block.get_submodule(f"branch{end}").register_forward_hook(lambda _m, _x, y, end=end: seen.update({end: y}))
        for end in ends
    ]
    channels = block.get_submodule(f"branch{BLOCKS[name].split()[0]}").get_submodule("conv").weight.shape[1]
    x = torch.randn(1, channels, 9, 9, generator=torch.Generator().manual_seed(1))
    joined = block(x)
    for hook in hooks:
        hook.remove()
    parts = torch.cat([seen[end] for end in ends], dim=1)
    torch.testing.assert_close(joined[:, : parts.shape[1]], parts)
    if joined.shape[1] > parts.shape[1]:  # the reductions end with the pooled input itself
        torch.testing.assert_close(joined[:, parts.shape[1] :], torch.nn.functional.max_pool2d(x, 3, 2))


def test_one_convolution_worked_out_by_hand():
    layer = ConvNormReLU(1, 2, 1).eval()
    layer.load_state_dict(
        {
            "conv.weight": torch.tensor([2.0, -2.0]).view(2, 1, 1, 1),
            "bn.weight": torch.tensor([3.0, 3.0]),
            "bn.bias": torch.tensor([1.0, 1.0]),
            "bn.running_mean": torch.tensor([4.0, 4.0]),
            "bn.running_var": torch.tensor([0.008, 0.008]),  # with eps 0.001 a deviation of 0.0948683
            "bn.num_batches_tracked": torch.tensor(0),
        }
    )
    out = layer(torch.full((1, 1, 1, 1), 5.0))
    assert out.flatten().tolist() == pytest.approx([(10 - 4) / 0.009**0.5 * 3 + 1, 0])
