"""Two ranks compute the losses, gradients and trainings of one process, up to float rounding."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.training import SPEC, Recorder, batches, fresh, trained
from unet_models.distributed import rank as own_rank
from unet_models.distributed import sum_over_ranks, world_size
from unet_models.specs.loop import OptimizerSpec
from unet_models.specs.segmentation import LossSpec
from unet_models.training.fit import fit
from unet_models.training.losses import contrastive_loss, segmentation_loss
from unet_models.training.objectives import Segmentation

SHARED = {
    "even": SPEC,
    "uneven": SPEC.model_copy(update={"global_batch_size": 3}),
    "uneven, accumulated": SPEC.model_copy(update={"global_batch_size": 3, "micro_batch_size": 1}),
    "clipped": SPEC.model_copy(update={"optimizer": SPEC.optimizer.model_copy(update={"clip_norm": 0.05})}),
    "batch Dice": SPEC.model_copy(update={"global_batch_size": 3, "loss": LossSpec(batch_dice=True)}),
    "adamw": SPEC.model_copy(update={"optimizer": OptimizerSpec(), "ema_decay": 0.9}),
}
"""Trainings that run both in one process and in two."""
SHARES = (slice(0, 1), slice(1, 3))
"""Samples of each rank in the loss of an uneven share."""
BATCH_SPEC = LossSpec(terms={"cross_entropy": 1.0, "dice": 1.0, "tversky": 0.5}, batch_dice=True)


def random_case() -> tuple[Tensor, Tensor]:
    """Logits and masks of three samples."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 4, 6, 5, 4, generator=generator)
    return logits, torch.randint(4, (3, 6, 5, 4), generator=generator).to(torch.uint8)


def segmentation_and_gradient(logits: Tensor, masks: Tensor, num_samples: int) -> dict[str, Tensor]:
    leaf = logits.clone().requires_grad_()
    loss = segmentation_loss(leaf, masks, BATCH_SPEC)
    (loss.sum() / num_samples).backward()
    assert leaf.grad is not None
    return {"loss": loss.detach(), "gradient": leaf.grad.contiguous()}


def contrast_and_gradient(images: Tensor, texts: Tensor, num_pairs: int) -> dict[str, Tensor]:
    leaf = images.clone().requires_grad_()
    loss = contrastive_loss(F.normalize(leaf, dim=1), F.normalize(texts, dim=1), torch.tensor(3.0))
    (loss.sum() / num_pairs).backward()
    assert leaf.grad is not None
    return {"loss": loss.detach(), "gradient": leaf.grad}


def random_pairs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 5, generator=generator), torch.randn(4, 5, generator=generator)


def one_of_two_ranks(rank: int, folder: str) -> None:
    """Body of a spawned process: everything that the tests below compare, as one rank of two."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(minutes=10)
    )
    values = torch.tensor([1.0, 10.0]) * (rank + 1)
    sums = {"sum": sum_over_ranks(values, torch.device("cpu")), "values": values}
    save_file(sums | {"address": torch.tensor([own_rank(), world_size()])}, f"{folder}/distributed-{rank}")
    logits, masks = random_case()
    share = segmentation_and_gradient(logits[SHARES[rank]], masks[SHARES[rank]], 3)
    save_file(share, f"{folder}/segmentation-{rank}")
    images, texts = random_pairs()
    own = slice(2 * rank, 2 * rank + 2)
    save_file(contrast_and_gradient(images[own], texts[own], 4), f"{folder}/contrast-{rank}")
    for name, spec in SHARED.items():
        losses, state = trained(spec, rank, 2)
        Path(folder, f"train-{name}-{rank}.json").write_text(json.dumps(losses))
        save_file({k: v.contiguous() for k, v in state.model.state_dict().items()}, f"{folder}/train-{name}-{rank}")
    state, asked = fresh(SPEC), Recorder(stop_at=2 if rank else 1, stop_as=rank + 1)
    reason = fit(state, Segmentation(SPEC), batches(SPEC, 0, rank, 2), SPEC, asked)
    Path(folder, f"stop-{rank}.json").write_text(json.dumps([reason, state.step]))
    asked = Recorder(stop_at=None if rank else 0)
    reason = fit(state, Segmentation(SPEC), batches(SPEC, state.step, rank, 2), SPEC, asked)
    Path(folder, f"stop-again-{rank}.json").write_text(json.dumps([reason, state.step]))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of both ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        torch.multiprocessing.spawn(one_of_two_ranks, (str(folder),), nprocs=2)
    return folder


def test_ranks_know_their_number_and_sums_leave_the_values_alone(two_ranks: Path) -> None:
    for rank in range(2):
        found = load_file(two_ranks / f"distributed-{rank}")
        assert found["address"].tolist() == [rank, 2]
        assert found["sum"].tolist() == [3, 30]
        assert found["values"].tolist() == [rank + 1, 10 * (rank + 1)]


def test_a_stop_of_one_rank_stops_both_at_the_same_step(two_ranks: Path) -> None:
    """The first was asked a step before the second, then the second alone was not asked."""
    for rank in range(2):
        assert json.loads((two_ranks / f"stop-{rank}.json").read_text()) == [1, 2]
        assert json.loads((two_ranks / f"stop-again-{rank}.json").read_text()) == [1, 3]


def test_one_process_is_one_rank() -> None:
    assert (own_rank(), world_size()) == (0, 1)
    assert sum_over_ranks(torch.tensor([4.0]), torch.device("cpu")).tolist() == [4]


def test_batch_dice_over_two_processes_is_that_of_one(two_ranks: Path) -> None:
    whole = segmentation_and_gradient(*random_case(), 3)
    shares = [load_file(two_ranks / f"segmentation-{rank}") for rank in range(2)]
    for name, tensor in whole.items():
        torch.testing.assert_close(torch.cat([share[name] for share in shares]), tensor, rtol=1e-5, atol=1e-8)


def test_contrastive_loss_over_two_processes_is_that_of_one(two_ranks: Path) -> None:
    whole = contrast_and_gradient(*random_pairs(), 4)
    shares = [load_file(two_ranks / f"contrast-{rank}") for rank in range(2)]
    for name, tensor in whole.items():
        torch.testing.assert_close(torch.cat([share[name] for share in shares]), tensor)


@pytest.mark.parametrize("name", SHARED)
def test_two_ranks_train_as_one_process_does(two_ranks: Path, name: str) -> None:
    losses, state = trained(SHARED[name])
    still = SHARED[name].optimizer.model_copy(update={"learning_rate": 1e-9})
    untrained, _ = trained(SHARED[name].model_copy(update={"optimizer": still}))
    assert losses[0] == untrained[0]
    assert losses[-1] < untrained[-1]  # of the same batch: batches differ by more than five steps teach
    for rank in range(2):
        shared = json.loads((two_ranks / f"train-{name}-{rank}.json").read_text())
        np.testing.assert_allclose(shared, losses, rtol=1e-5)
    weights = [load_file(two_ranks / f"train-{name}-{rank}") for rank in range(2)]
    for key, tensor in state.model.state_dict().items():
        assert torch.equal(weights[0][key], weights[1][key]), key
        if SHARED[name].optimizer.name == "sgd":  # Adam turns rounding of a vanishing gradient into a whole step
            torch.testing.assert_close(weights[0][key], tensor.contiguous(), rtol=1e-4, atol=1e-6)
