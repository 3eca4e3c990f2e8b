"""Description of a segmentation model beside its weights. Light to import: no torch."""

from __future__ import annotations

from typing import Literal

from data_pipelines.specs import Spec
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.specs import InputSpec, PreprocessSpec, Spacing
from data_pipelines.volumes.trained_range import TrainedRange
from flows.pipelines.segmentation.postprocess import Postprocessing
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import PredictSpec


class Bundle(Spec):
    """Network, classes, preprocessing and prediction settings of a trained model."""

    format: int = 1
    model: UNetSpec
    num_members: int = 1
    """Networks of this architecture whose predictions are averaged."""
    averaged: Literal["probabilities", "logits"] = "probabilities"
    """Quantity that is averaged over the networks."""
    labels: Labels
    """Classes, and the values that stand for them in files."""
    channels: tuple[str, ...]
    """Names of the input channels."""
    patch_size: tuple[int, ...]
    """Voxels of the sliding window."""
    preprocess: PreprocessSpec
    spacing: Spacing | None
    """Target spacing in mm, along the axes of a sample; none: each case's own."""
    mirror_axes: tuple[int, ...]
    """Axes that training mirrored, the only ones that test-time augmentation may mirror."""
    slicewise: bool = False
    """The network is one of 2-D images, and sees slices across the first axis of a sample."""
    predict: PredictSpec
    postprocessing: Postprocessing = Postprocessing()
    """Steps that follow the network, chosen by cross-validation."""
    temperatures: tuple[float, ...] = ()
    """Temperature of each output, fitted on held-out cases: it changes probabilities, no label. Empty: not fitted."""
    trained_range: TrainedRange | None = None
    """Range of the training cases; inputs beyond it are said to be."""
    limits: InputSpec = InputSpec()
    """Limits and tolerances of input files, as in training."""
    partner: Bundle | None = None
    """Second model, of the same channels and classes and with preprocessing of its own: the probabilities of both are
    averaged on the grid of the file. Its classes, temperatures and postprocessing are not used."""
    num_previous: int = 0
    """Classes of the label map that the network is given as a further channel of the image; 0: none."""
    previous: Bundle | None = None
    """Model whose label map that is (cascade). None: the images have it already."""

    @property
    def num_networks(self) -> int:
        """Networks that are averaged, in all."""
        return self.num_members + (self.partner.num_networks if self.partner else 0)

    @property
    def num_inputs(self) -> int:
        """Channels of the network's images."""
        return len(self.channels) + (self.num_previous > 0)

    def with_choices(self, *, tta: bool, temperatures: tuple[float, ...] = ()) -> Bundle:
        """Return the bundle with what an evaluation has chosen."""
        predict = self.predict.model_copy(update={"tta": tta})
        return self.model_copy(update={"predict": predict, "temperatures": temperatures})

    @property
    def network_ndim(self) -> int:
        """Spatial axes of the network's images."""
        return len(self.patch_size) - self.slicewise
