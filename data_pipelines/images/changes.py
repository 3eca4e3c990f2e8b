"""Changes that sharding may make in an image beyond its size, by name: counted, and shown in the report.

A change is not an error. A name stands in the index (``changes``), a sentence in the report.
"""

from __future__ import annotations

PROFILE = "colour-profile"
BAD_PROFILE = "unusable-profile"
ADOBE_RGB = "adobe-rgb-tag"
GAMMA = "gamma-tag"
COLOUR_TAG = "colour-tag"
CMYK = "cmyk"
DEEP = "16-bit"
TRANSPARENT = "transparency"
FIRST_FRAME = "first-frame"
ENLARGED = "enlarged"
SEVERAL_CAPTIONS = "several-captions"
SEVERAL_LINES = "several-lines"
CUT_CAPTIONS = "captions-left-out"
TRAINED_ON = "held-out-twin"

CHANGES = {
    PROFILE: "converted to sRGB by the colour profile in the file",
    BAD_PROFILE: "with a colour profile that is damaged or of another colour mode: taken as sRGB",
    ADOBE_RGB: "tagged as Adobe RGB without a profile: taken as sRGB",
    GAMMA: "with a gamma other than sRGB's and no profile: taken as sRGB",
    COLOUR_TAG: "with another colour space than sRGB in nclx (AVIF) or cICP (PNG) and no profile: taken as sRGB",
    CMYK: "CMYK without a profile, converted by the plain formula",
    DEEP: "of more than 8 bits per channel (10, 12 or 16), reduced to 8",
    TRANSPARENT: "with transparent pixels, laid over data.background",
    FIRST_FRAME: "of several frames or pages: the first is used, with the caption of the whole (data.frames)",
    ENLARGED: "smaller than the wanted size, enlarged",
    SEVERAL_CAPTIONS: "with several captions: one is sampled each time",
    SEVERAL_LINES: "with a caption of several lines, used as one (data.caption_lines)",
    CUT_CAPTIONS: "with some of their captions skipped (data.min_caption_chars, data.max_caption_chars)",
    TRAINED_ON: "held out, with the pixels of one that is trained on: their scores prove nothing (data.deduplicate)",
}
"""Name of a change to the end of the sentence \"Images ...\"."""
