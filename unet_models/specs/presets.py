"""Published segmentation networks as fields of ``UNetSpec``. ``preset: NAME`` makes them the defaults of a spec.

Parameters are counted at the stated channels and classes (tests/unit/unet_models/networks/test_family.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Fields = Mapping[str, Any]

_VGG: Fields = {
    "channels": (64, 128, 256, 512, 512, 512),
    "num_blocks": (2, 2, 3, 3, 3, 1),
    "norm": "batch",
    "activation": "relu",
    "downsample": "max_pool",
    "decoder": "fcn",
}
"""Convolutions of VGG-16 with batch normalisation, and one more stage in place of its fully connected layers."""
_UNET: Fields = {
    "channels": (64, 128, 256, 512, 1024),
    "norm": "batch",
    "activation": "relu",
    "downsample": "max_pool",
}
_LIGHT: Fields = {"channels": (32, 64, 128, 256, 512), "norm": "batch", "activation": "relu"}
_MEDNEXT: Fields = {
    "channels": (32, 64, 128, 256, 512),
    "block": "mednext",
    "activation": "gelu",
    "skip": "add",
    "deep_supervision": 3,
}


def _fcn(*levels: int) -> Fields:
    """Return the FCN that adds the scores of the stages ``levels`` to those of the coarsest."""
    return {**_VGG, "skip": tuple("add" if level in levels else "none" for level in range(5))}


def _mednext(expansion: Any, num_blocks: Any) -> Fields:
    """Return MedNeXt with numbers for all stages, or per stage of the encoder; those of the decoder mirror them."""
    mirrored = num_blocks[:-1] if isinstance(num_blocks, tuple) else num_blocks
    return {**_MEDNEXT, "expansion": expansion, "num_blocks": num_blocks, "num_decoder_blocks": mirrored}


PRESETS: Mapping[str, Fields] = {
    "fcn_32s": _fcn(),  # Long 2015
    "fcn_16s": _fcn(4),
    "fcn_8s": _fcn(4, 3),
    # Ronneberger 2015 as published, 572 to 388 pixels: 31,030,658 parameters, 2-D, 1 to 2
    "unet_2015": {**_UNET, "norm": "none", "padding": "valid"},
    "unet": _UNET,  # Ronneberger 2015 as it is used today, padded and normalised: 31,042,434 parameters, 2-D, 1 to 2
    "resunet": {**_UNET, "block": "residual"},  # Zhang 2018
    "attention_unet": {**_UNET, "skip": "gated_coarse"},  # Oktay 2018: 32,087,878 parameters, 2-D, 1 to 2
    "unet_plus_plus": {  # Zhou 2018
        **_UNET,
        "channels": (32, 64, 128, 256, 512),
        "upsample": "linear",
        "decoder": "nested",
    },
    "nnunet": {  # Isensee 2021, as planned for Task04 (hippocampus): 5,602,953 parameters, 3-D, 1 to 3
        "channels": (32, 64, 128, 256),
        "upsample_bias": False,
        "deep_supervision": 2,
    },
    "residual_encoder": {  # Isensee 2024; M, L and XL are plans of it for 8, 24 and 40 GB of GPU memory
        "channels": (32, 64, 128, 256, 320, 320),
        "num_blocks": (1, 3, 4, 6, 6, 6),
        "num_decoder_blocks": 1,
        "block": "residual_encoder",
        "decoder_block": "plain",
        "deep_supervision": 4,
    },
    "mednext_s": _mednext(2, 2),  # Roy 2023, table 3
    "mednext_b": _mednext((2, 3, 4, 4, 4), 2),
    "mednext_m": _mednext((2, 3, 4, 4, 4), (3, 4, 4, 4, 4)),
    "mednext_l": _mednext((3, 4, 8, 8, 8), (3, 4, 8, 8, 8)),
    "mobile_unet": {  # inverted residuals of MobileNetV2 (Sandler 2018)
        "channels": (16, 24, 32, 64, 96),
        "block": "inverted_residual",
        "expansion": 6,
        "norm": "batch",
        "skip": "add",
    },
    "shuffle_unet": {**_LIGHT, "block": "shuffle", "groups": 4},  # ShuffleNet units (Zhang 2018)
    "separable_unet": {**_LIGHT, "block": "separable"},  # depthwise-separable convolutions (Howard 2017)
}
