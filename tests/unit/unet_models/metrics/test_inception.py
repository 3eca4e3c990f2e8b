"""The FID Inception on random weights: its published shape, its pools, its resizing, and what a file must be."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from unet_models.metrics import inception
from unet_models.metrics.inception import FIDInception, inception_features, load_inception, resize_tf1_bilinear

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


@pytest.fixture(scope="module")
def network() -> FIDInception:
    """Random weights that keep the scale of what passes, so that the last features still differ between images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = FIDInception()
        for name, tensor in built.state_dict().items():
            if name.endswith("conv.weight"):
                torch.nn.init.kaiming_normal_(tensor, nonlinearity="relu")
            elif name.endswith("running_mean"):
                tensor.normal_(std=0.1)
    return built.eval().requires_grad_(False)


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# --- The network -----------------------------------------------------------------------------------------------------


def test_number_of_parameters():
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in FIDInception().parameters())
    # Published for torchvision's: 27,161,264; its auxiliary head has 3,326,696; 8 more classes of 2048 weights and 1.
    assert count == 27_161_264 - 3_326_696 + 8 * 2049


def test_tensors_have_the_names_of_the_file(network: FIDInception):
    convs = list(STEM)
    for block, branches in BLOCKS.items():
        for twin in (block, *(f"Mixed_{name}" for name in TWINS[block].split())):
            convs += [f"{twin}.branch{branch}" for branch in branches.split()]
    names = {f"{conv}.conv.weight" for conv in convs}
    names |= {f"{conv}.bn.{name}" for conv in convs for name in BATCH_NORM}
    assert len(convs) == 94
    assert set(network.state_dict()) == names | {"fc.weight", "fc.bias"}
    assert network.fc.weight.shape == (1008, 2048)


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
def test_convolutions_have_the_shapes_of_the_file(network: FIDInception, name: str, kernels: str, hidden: list[int]):
    table = next(BLOCKS[block] for block in BLOCKS if block[:7] == name[:7] and (block[-1] == "a") == (name[-1] == "a"))
    shapes = [network.state_dict()[f"{name}.branch{branch}.conv.weight"].shape for branch in table.split()]
    assert " ".join(f"{shape[2]}x{shape[3]}" for shape in shapes) == kernels
    assert [shape[0] for shape in shapes] == hidden


def test_maps_have_the_sizes_of_the_paper(network: FIDInception):
    sizes = {}
    hooks = [
        module.register_forward_hook(lambda _m, _x, y, name=name: sizes.update({name: tuple(y.shape[1:])}))
        for name, module in network.named_children()
    ]
    network(torch.zeros(1, 3, 299, 299))
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
def test_pools_worked_out_by_hand(network: FIDInception, name: str, channels: int, pool: str):
    block = network.get_submodule(name)
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
def test_branches_are_joined_in_the_order_of_the_graph(name: str, network: FIDInception):
    ends = {
        "Mixed_5b": ["1x1", "5x5_2", "3x3dbl_3", "_pool"],
        "Mixed_6a": ["3x3", "3x3dbl_3"],
        "Mixed_6b": ["1x1", "7x7_3", "7x7dbl_5", "_pool"],
        "Mixed_7a": ["3x3_2", "7x7x3_4"],
        "Mixed_7b": ["1x1", "3x3_2a", "3x3_2b", "3x3dbl_3a", "3x3dbl_3b", "_pool"],
    }[name]
    block = network.get_submodule(name)
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
    layer = inception.ConvNormReLU(1, 2, 1).eval()
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


# --- Resizing --------------------------------------------------------------------------------------------------------


def test_enlarging_worked_out_by_hand():
    image = torch.tensor([[0, 40], [80, 200]], dtype=torch.uint8)[None, None]
    # Positions 0, 1/2, 1, 3/2; beyond the last pixel it is repeated.
    expected = [[0.0, 20, 40, 40], [40, 80, 120, 120], [80, 140, 200, 200], [80, 140, 200, 200]]
    assert resize_tf1_bilinear(image, (4, 4))[0, 0].tolist() == expected


def test_shrinking_takes_pixels_without_smoothing():
    image = torch.arange(48, dtype=torch.uint8).view(1, 1, 6, 8)
    assert resize_tf1_bilinear(image, (3, 2))[0, 0].tolist() == [[0, 4], [16, 20], [32, 36]]


def test_height_and_width_are_resized_apart_and_not_rounded():
    image = torch.tensor([[0, 3, 9]], dtype=torch.uint8)[None, None]
    resized = resize_tf1_bilinear(image, (2, 4))[0, 0]  # positions 0, 3/4, 3/2, 9/4
    torch.testing.assert_close(resized, torch.tensor([[0, 2.25, 6, 9]] * 2))


def test_images_of_the_size_wanted_are_left_as_they_are():
    images = random_images(2, 3, 299, 299)
    assert torch.equal(resize_tf1_bilinear(images, (299, 299)), images.float())


# --- Features --------------------------------------------------------------------------------------------------------


def test_features_are_the_networks_of_resized_and_normalised_images(network: FIDInception):
    images = random_images(2, 3, 32, 40)
    features = inception_features(network, images)
    assert features.shape == (2, 2048)
    assert features.dtype == torch.float32
    assert not torch.allclose(features[0], features[1], rtol=1e-2)
    inputs = resize_tf1_bilinear(images, (299, 299)) / 128 - 1
    torch.testing.assert_close(features, network(inputs), rtol=1e-3, atol=1e-4)


def test_features_are_the_mean_of_the_last_map(network: FIDInception):
    seen: list[Tensor] = []
    hook = network.Mixed_7c.register_forward_hook(lambda _m, _x, y: seen.append(y))
    features = inception_features(network, random_images(1, 3, 50, 50))
    hook.remove()
    torch.testing.assert_close(features, seen[0].flatten(2).sum(dim=2) / 64)


def test_autocast_does_not_reach_the_features(network: FIDInception):
    images = random_images(1, 3, 32, 32)
    expected = inception_features(network, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(inception_features(network, images), expected)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 8, 8), r"must be uint8 .* got torch.float32"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), r"\(1, 1, 8, 8\); repeat a grey channel"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"got torch.uint8 of shape \(3, 8, 8\)"),
    ],
)
def test_bad_images_are_refused(network: FIDInception, images: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        inception_features(network, images)


def test_network_in_training_mode_is_refused(network: FIDInception):
    network.train()
    try:
        with pytest.raises(ValueError, match=r"call network.eval\(\)"):
            inception_features(network, random_images(1, 3, 8, 8))
    finally:
        network.eval()


# --- The file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [inception.WEIGHTS_FILE, "weights.safetensors"])
def test_file_round_trip(network: FIDInception, tmp_path: Path, name: str):
    path = tmp_path / name
    # Files older than the counters do not hold them.
    tensors = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    generator = torch.get_rng_state()
    for sha256 in (digest_of(path), digest_of(path)[:8].upper()):
        loaded = load_inception(path, sha256)
    assert torch.equal(torch.get_rng_state(), generator)
    for key, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_file_is_the_published_one_by_default(network: FIDInception, tmp_path: Path):
    path = tmp_path / inception.WEIGHTS_FILE
    torch.save(network.state_dict(), path)
    assert inception.WEIGHTS_SHA256[:8] in inception.WEIGHTS_FILE
    with pytest.raises(ValueError, match=f"must begin with 6726825d0af5f729, got {digest_of(path)[:16]}; download pt_"):
        load_inception(path)


def test_missing_file_says_what_to_fetch_from_where_to_where(tmp_path: Path):
    with pytest.raises(ValueError) as caught:
        load_inception(tmp_path / "weights.pth")
    for part in ("no such file", inception.WEIGHTS_FILE, "mseitzer/pytorch-fid", f"put it into {tmp_path}"):
        assert part in str(caught.value)


def test_digest_too_short_to_tell_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="first 8 digits, got ''"):
        load_inception(tmp_path / "weights.pth", "")


def test_other_tensors_are_refused(network: FIDInception, tmp_path: Path):
    path = tmp_path / "weights.pth"
    tensors = dict(network.state_dict())
    wrong = {
        r"1 missing \['fc.bias'\], 0 unknown": {k: v for k, v in tensors.items() if k != "fc.bias"},
        r"0 missing \[\], 1 unknown \['AuxLogits.fc.bias'\]": tensors | {"AuxLogits.fc.bias": torch.zeros(1000)},
        "other shapes.*fc.bias": tensors | {"fc.bias": torch.zeros(1000)},
        "must hold a dict of tensors, got list": [torch.zeros(1)],
    }
    for message, content in wrong.items():
        torch.save(content, path)
        with pytest.raises(ValueError, match=f"(?s){message}"):
            load_inception(path, digest_of(path))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_unreadable_file_is_refused(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(b"not tensors at all")
    with pytest.raises(ValueError, match="not a readable file of tensors"):
        load_inception(path, digest_of(path))


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_pickled_code_is_not_run(tmp_path: Path):
    path, touched = tmp_path / "weights.pth", tmp_path / "touched"
    torch.save({"fc.bias": _Touch(touched)}, path)
    with pytest.raises(ValueError, match="not a readable file of tensors"):
        load_inception(path, digest_of(path))
    assert not touched.exists()
