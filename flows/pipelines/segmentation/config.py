"""Configuration of the segmentation pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from data_pipelines.specs import Spec
from data_pipelines.volumes.specs import DataSpec
from flows.config.pipeline import PipelineConfig
from flows.tuning.spec import SearchSpec
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import PredictSpec, TrainSpec


class EvaluateSpec(PredictSpec):
    """Prediction and scoring of the held-out cases, in their original geometry."""

    tolerance_mm: float = Field(default=1.0, gt=0)
    """Tolerance of the surface Dice, in mm."""
    exit_thresholds: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """Values of ``exit_confidence`` whose Dice and time the report compares; each predicts every held-out case once
    more."""


BASE = "base"
"""Name of the configuration itself among its candidates."""


class SegmentationConfig(PipelineConfig):
    """Configuration of the segmentation pipeline."""

    pipeline: Literal["segmentation"] = "segmentation"
    """Name of the pipeline."""
    data: DataSpec = DataSpec()
    """Raw data to shards."""
    search: SearchSpec | None = None
    """Search over the network before it is trained, as ``unetflow search`` does. None: the network as configured."""
    train: TrainSpec = TrainSpec()
    """Shards to checkpoint."""
    evaluate: EvaluateSpec = EvaluateSpec()
    """Checkpoint to scores."""
    candidates: dict[str, dict[str, Any]] = Field(default={})
    """Configurations to compare with this one, by name: what they change of ``train`` and ``data.preprocess``, such as
    ``{slices: {train: {patch_size: [1, 56, 40]}}}``. All are trained on the same folds, and the one whose Dice over all
    held-out cases is highest is registered."""
    previous: str | None = None
    """In a candidate: another one whose segmentation the network is given beside the image, to refine it (cascade,
    Isensee 2021), such as ``{cascade: {previous: 3d_lowres}}``. It takes ``data.fold: all``: each case is segmented by
    the network that was not trained on it. None: images alone."""
    previous_settings: dict[str, Any] | None = None
    """Configuration of that candidate, of all folds; set from ``candidates``."""
    pair_candidates: bool = True
    """Compare the averages of every two candidates as well: each predicts all held-out cases once more. A pair that is
    better by 0.001 Dice is registered as one model of both."""

    @property
    def candidate_configs(self) -> dict[str, SegmentationConfig]:
        """Configuration of each candidate by name, this one (``base``) first."""
        return {BASE: self._alone} | {name: self._changed(name) for name in self.candidates}

    def _changed(self, name: str) -> SegmentationConfig:
        """Return the configuration of a candidate. Raises ValidationError."""
        changed = SegmentationConfig.model_validate(_merged(self._alone, self.candidates[name]))
        if changed.previous is None:
            return changed
        previous = self._changed(changed.previous) if changed.previous in self.candidates else self._alone
        return changed.model_copy(update={"previous_settings": previous.model_dump(mode="json")})

    @property
    def _alone(self) -> SegmentationConfig:
        """The configuration without its candidates."""
        return self.model_copy(update={"candidates": {}})

    @field_validator("candidates")
    @classmethod
    def _check_candidates(cls, candidates: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Refuse changes of what all candidates share: cases, classes, folds, and how they are scored."""
        for name, changes in candidates.items():
            data = changes.get("data", {})
            given = [key for key in changes if key not in ("train", "data", "previous")]
            given += [f"data.{key}" for key in data if key != "preprocess"] if isinstance(data, dict) else ["data"]
            if given:
                raise ValueError(
                    f"{name}: it may change train and data.preprocess, and name a previous one, not {', '.join(given)}"
                )
            if name in ("", BASE):
                raise ValueError(f"{name!r} is no name of a candidate: {BASE!r} is this configuration itself")
            if "+" in name:
                raise ValueError(f"{name!r} is no name of a candidate: A+B is the pair of A and B; leave out the +")
        return candidates

    @model_validator(mode="after")
    def _check_axes(self) -> SegmentationConfig:
        if len(self.train.patch_size) != self.data.ndim:
            raise ValueError(
                f"train.patch_size has {len(self.train.patch_size)} numbers, data.ndim is {self.data.ndim}: "
                "give one number per spatial axis"
            )
        exits = self.evaluate.exit_confidence is not None or self.evaluate.exit_thresholds
        if exits and self.train.model.fusion is not None:
            raise ValueError("evaluate.exit_confidence and exit_thresholds are for networks without train.model.fusion")
        if exits and not (self.train.model.deep_supervision and self.train.model.decoder == "unet"):
            raise ValueError(
                "evaluate.exit_confidence and exit_thresholds need heads to leave at: set train.model.deep_supervision "
                f"to 1 or more, with decoder unet (got {self.train.model.deep_supervision}, {self.train.model.decoder})"
            )
        self._check_search(exits=bool(exits))
        self._check_members()
        spacing = self.data.preprocess.spacing
        if isinstance(spacing, tuple) and len(spacing) != self.data.ndim:
            raise ValueError(f"data.preprocess.spacing has {len(spacing)} numbers, data.ndim is {self.data.ndim}")
        self.check_batch("train", self.train.global_batch_size)
        for name in self.candidates:
            try:
                changed = self._changed(name)
            except ValidationError as error:
                found = error.errors()[0]
                where = ".".join(str(part) for part in found["loc"])
                raise ValueError(f"candidates.{name}{where and '.'}{where}: {found['msg']}") from None
            changed._check_member(f"candidates.{name}")
        self._check_cascades()
        return self

    def _check_search(self, *, exits: bool) -> None:
        """Refuse a search whose trials could not be compared, or could choose a network without heads to leave at."""
        if self.search is None:
            return
        if not self.train.validate_cases:
            raise ValueError("search: its trials are compared by validation; set train.validate_cases to 1 or more")
        if exits and (not self.search.over or "depth" in self.search.over):
            raise ValueError(
                "evaluate.exit_confidence and exit_thresholds: a search may choose a network of two stages, which has "
                "no heads to leave at; leave depth out of search.over"
            )

    def _check_cascades(self) -> None:
        """Refuse a previous network that is not there, or that has a previous one itself."""
        if self.candidates and self.previous is not None:
            raise ValueError("previous: it belongs to one of the candidates, such as {cascade: {previous: base}}")
        wanted = {name: changes["previous"] for name, changes in self.candidates.items() if changes.get("previous")}
        for name, previous in wanted.items():
            alone = [BASE, *(each for each in self.candidates if each not in wanted)]
            if previous not in alone:
                raise ValueError(
                    f"candidates.{name}.previous: {previous!r} is no candidate without a previous one; there are "
                    f"{', '.join(alone)}"
                )
        if wanted and self.data.fold != "all":
            raise ValueError(
                f"candidates.{next(iter(wanted))}.previous: each case is to be segmented by a network that was not "
                "trained on it; set data.fold to all"
            )

    def _check_members(self) -> None:
        """Refuse what members of an ensemble, and candidates, cannot have."""
        if isinstance(self.data.fold, int) and not self.candidates:
            return
        self._check_member("candidates" if self.candidates else "data.fold")

    def _check_member(self, cause: str) -> None:
        """Refuse what one member cannot have; ``cause`` names the setting that makes several."""
        parts = {
            "search": self.search is not None,
            "train.model.fusion": self.train.model.fusion is not None,
            "evaluate.exit_confidence": self.evaluate.exit_confidence is not None,
        }
        for name, is_set in parts.items():
            if is_set:
                raise ValueError(
                    f"{cause}: what becomes one model has no {name}; leave it out, or set one fold and no candidates"
                )


def _merged(base: Spec, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with those of ``changes``, group by group; any other value, a mapping too, is replaced."""
    merged = base.model_dump()
    for name, change in changes.items():
        before = getattr(base, name, None)
        if isinstance(before, Spec) and isinstance(change, Mapping):
            # A preset gives the defaults of fields that are not set: in the base's dump all are.
            has_preset = isinstance(before, UNetSpec) and change.get("preset") is not None
            merged[name] = dict(change) if has_preset else _merged(before, change)
        else:
            merged[name] = change
    return merged
