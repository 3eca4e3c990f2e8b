"""Segment a NIfTI volume with a registered model, without torch, MLflow or unetflow.

python segment_without_torch.py BUNDLE image.nii.gz labels.nii.gz

BUNDLE is the artifact `bundle` of a segmentation model. Needs numpy, scipy, nibabel and onnxruntime.
"""

import itertools
import json
import math
import sys
from pathlib import Path

import nibabel
import numpy as np
import onnxruntime
from nibabel.orientations import io_orientation
from scipy import ndimage


def find_coarse_axis(spacing):
    """The only axis whose spacing is more than 3 times the finest, else None."""
    coarse = [axis for axis, size in enumerate(spacing) if size > 3 * min(spacing)]
    return coarse[0] if len(spacing) == 3 and len(coarse) == 1 else None


def resample(volume, shape, coarse_axis, order=1):
    """Another grid over the same extent; across thick slices each by itself, then the nearest."""
    if coarse_axis is not None:
        slices = np.moveaxis(volume, coarse_axis, 0)
        count, plane = shape[coarse_axis], (*shape[:coarse_axis], *shape[coarse_axis + 1 :])
        nearest = ((np.arange(count) + 0.5) * len(slices) / count).astype(int)
        resampled = np.stack([resample(each, plane, None, order) for each in slices])
        return np.moveaxis(resampled[nearest], 0, coarse_axis)
    zoom = [m / n for m, n in zip(shape, volume.shape, strict=True)]
    zoomed = ndimage.zoom(volume, zoom, order=order, mode="nearest", grid_mode=True)
    return np.clip(zoomed, volume.min(), volume.max()) if order > 1 else zoomed


def crop(image, spec):
    """Bounding box of the foreground, and what of it counts for the statistics."""
    whole = tuple(slice(0, n) for n in image.shape[1:])
    if not spec["foreground_crop"]:
        return whole, None
    outside = 0 if spec["foreground_crop"] == "nonzero" else image.min(axis=(1, 2, 3), keepdims=True)
    foreground = (image != outside).any(axis=0)
    found = ndimage.find_objects(foreground.astype(np.uint8))
    if not found:
        return whole, None
    inside = foreground[found[0]]
    is_masked = inside.size < 0.75 * foreground.size if spec["masked"] is None else any(spec["masked"])
    return found[0], ndimage.binary_fill_holes(inside) if is_masked else None


def normalise(image, spec, inside):
    """Each channel by its own rule."""
    rules = spec["normalise"]
    for number, channel in enumerate(image):
        rule = rules if isinstance(rules, str) else rules[number]
        if rule == "zscore":
            masked = inside is not None and (spec["masked"] is None or spec["masked"][number])
            where = inside if masked else np.ones(channel.shape, bool)
            mean, std = channel.mean(dtype=float, where=where), channel.std(dtype=float, where=where)
            channel[...] = np.where(where, (channel - mean) / max(std, 1e-8), 0)
        elif rule == "window":
            low, high = spec["window"]
            channel[...] = (np.clip(channel, low, high) - low) * np.float32(2 / (high - low)) - 1
        elif rule == "intensities":
            known = spec["intensities"][number]
            channel[...] = (np.clip(channel, known["low"], known["high"]) - known["mean"]) / known["std"]


def predict(session, image, bundle):
    """Logits (K, *spatial): the mean over overlapping windows, weighted by a Gaussian, and over mirrored copies."""
    patch, settings = bundle["patch_size"], bundle["predict"]
    pad = [
        (max(p - n, 0) // 2, max(p - n, 0) - max(p - n, 0) // 2) for n, p in zip(image.shape[1:], patch, strict=True)
    ]
    padded = np.pad(image, [(0, 0), *pad])
    starts = []
    for n, p in zip(padded.shape[1:], patch, strict=True):
        count = 1 + math.ceil((n - p) / max(p * (1 - settings["overlap"]), 1))
        starts.append([round((n - p) / max(count - 1, 1) * i) for i in range(count)])
    weights = weights_of(patch, settings["weighting"])
    axes = [axis + 1 for axis in bundle["mirror_axes"]] if settings["tta"] else []
    flips = [flip for n in range(len(axes) + 1) for flip in itertools.combinations(axes, n)]
    total, norm = 0, np.zeros(padded.shape[1:], np.float32)
    for corner in itertools.product(*starts):
        window = tuple(slice(a, a + p) for a, p in zip(corner, patch, strict=True))
        inputs = padded[(slice(None), *window)]
        copies = [np.flip(run(session, np.flip(inputs, flip), bundle), flip) for flip in flips]
        if not norm.any():
            total = np.zeros((len(copies[0]), *padded.shape[1:]), np.float32)
        total[(slice(None), *window)] += weights * (sum(copies) / len(copies))
        norm[window] += weights
    inner = tuple(slice(before, n - after) for (before, after), n in zip(pad, padded.shape[1:], strict=True))
    return (total / norm)[(slice(None), *inner)]


def weights_of(patch, weighting):
    """Weights of a window's voxels: a Gaussian about its middle; nnU-Net's, in half precision, about voxel n // 2."""
    is_nnunet = weighting == "nnunet"
    weights = np.full((), 10.0 if is_nnunet else 1.0)
    for n in patch:
        middle = n // 2 if is_nnunet else (n - 1) / 2
        factor = np.exp(-0.5 * ((np.arange(n) - middle) / (n / 8)) ** 2)
        weights = weights[..., None] * (factor if is_nnunet else factor.astype(np.float32))
    if is_nnunet:
        half = weights.astype(np.float16)
        return np.maximum(half, half[half > 0].min()).astype(np.float32)
    return np.maximum(weights / weights.max(), 1e-4).astype(np.float32)


def run(session, patch, bundle):
    """The network on one window, padded at the far ends to what its strides divide."""
    strides = bundle["model"]["strides"] or [2] * (len(bundle["model"]["channels"]) - 1)
    divisor = [math.prod(s if isinstance(s, int) else s[axis] for s in strides) for axis in range(patch.ndim - 1)]
    missing = [-n % d for n, d in zip(patch.shape[1:], divisor, strict=True)]
    (logits,) = session.run(["logits"], {"images": np.pad(patch, [(0, 0), *((0, m) for m in missing)])[None]})
    return logits[0][(slice(None), *(slice(n) for n in patch.shape[1:]))]


def decide(logits, labels):
    """Numbers of classes: the most probable, or regions over one another."""
    if not labels["regions"]:
        return logits.argmax(axis=0)
    numbers = np.zeros(logits.shape[1:], int)
    for region, output in zip(labels["regions"], logits, strict=True):
        numbers[output > 0] = region["written"]
    return numbers


def postprocess(numbers, steps, voxel):
    """Components that are not the largest or too small become background, enclosed background the class around it."""
    for number in steps["largest_component"]:
        keep_components(numbers, number, lambda sizes: sizes == sizes.max())
    for number, smallest in steps["smallest_component"].items():
        keep_components(numbers, int(number), lambda sizes, least=smallest / voxel: sizes >= least)
    for number in steps["fill_holes"]:
        numbers[ndimage.binary_fill_holes(numbers == number) & (numbers == 0)] = number


def keep_components(numbers, number, keep):
    """Neighbours across corners are one component."""
    components, count = ndimage.label(numbers == number, np.ones((3,) * numbers.ndim))
    if count:
        sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
        numbers[~np.concatenate([[True], keep(sizes)])[components]] = 0


def segment(bundle_folder, image_path, output_path):
    """Read, preprocess, predict, restore, write."""
    bundle = json.loads((Path(bundle_folder) / "unetflow.json").read_text())
    spec = bundle["preprocess"]
    for name, is_known in {
        "number of axes": len(bundle["patch_size"]) == 3,
        "preprocess.axes": spec["axes"] is None and spec["orientation"] == "canonical",
        "model.padding": bundle["model"]["padding"] == "same",
        "predict.exit_confidence": bundle["predict"]["exit_confidence"] is None,
        "predict.precision": bundle["predict"]["precision"] == "fp32",
        "slicewise": not bundle["slicewise"],
        "partner": bundle["partner"] is None,
        "previous": bundle["previous"] is None,
    }.items():
        if not is_known:
            sys.exit(f"{bundle_folder}: this script does not know the model's {name}")
    session = onnxruntime.InferenceSession(Path(bundle_folder) / "onnx" / "unet.onnx")
    file = nibabel.load(image_path)
    stored = np.asarray(file.dataobj, np.float32)
    stored = np.moveaxis(stored, 3, 0) if stored.ndim == 4 else stored[None]
    orientation = io_orientation(file.affine)
    axes = [int(np.flatnonzero(orientation[:, 0] == canonical)[0]) for canonical in range(3)]
    flips = [axis for axis in range(3) if orientation[axes[axis], 1] < 0]
    unit = {"meter": 1000.0, "micron": 0.001}.get(file.header.get_xyzt_units()[0], 1.0)  # in mm
    spacing = [unit * float(np.linalg.norm(file.affine[:3, axis])) for axis in axes]
    image = np.flip(stored.transpose(0, *(axis + 1 for axis in axes)), [axis + 1 for axis in flips])
    whole = image.shape[1:]
    box, inside = crop(image, spec)
    image = np.array(image[(slice(None), *box)])
    normalise(image, spec, inside)
    size, target = image.shape[1:], [t or s for t, s in zip(bundle["spacing"] or spacing, spacing, strict=True)]
    shape = tuple(max(round(n * s / t), 1) for n, s, t in zip(size, spacing, target, strict=True))
    before = find_coarse_axis(spacing)
    coarse = (
        find_coarse_axis([s * n / m for s, n, m in zip(spacing, size, shape, strict=True)])
        if before is None
        else before
    )
    if shape != size:
        order = {"linear": 1, "spline": 3}[spec["image_interpolation"]]
        image = np.stack([resample(channel, shape, coarse, order) for channel in image])
    logits = predict(session, np.ascontiguousarray(image), bundle)
    if shape != size:
        logits = np.stack([resample(each, size, coarse) for each in logits])
    numbers = np.zeros(whole, int)
    numbers[box] = decide(logits, bundle["labels"])
    postprocess(numbers, bundle["postprocessing"], math.prod(spacing))
    numbers = np.flip(numbers, flips).transpose(np.argsort(axes))
    labels = np.array([values[0] for values in bundle["labels"]["values"]])[numbers]
    kinds = (np.iinfo(kind) for kind in (np.uint8, np.int16, np.uint16, np.int32))
    kind = next(kind for kind in kinds if kind.min <= labels.min() and labels.max() <= kind.max)
    written = type(file)(labels.astype(kind.dtype), file.affine)  # NIfTI-1 or NIfTI-2
    written.header.set_xyzt_units(*file.header.get_xyzt_units())
    nibabel.save(written, output_path)


if __name__ == "__main__":
    segment(*sys.argv[1:])
