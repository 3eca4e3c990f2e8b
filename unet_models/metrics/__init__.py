"""Metrics of segmentations, case by case, and of generated images, as distributions.

overlap            voxel counts: Dice, IoU, volume error
surface            boundaries in millimetres: 95 % Hausdorff distance, surface Dice
surface_elements   surface pieces, which surface Dice weighs by area
summary            scores of one case; means over cases with confidence intervals
comparison         two models on the same cases: the paired bootstrap
calibration        reliability of probabilities, and temperatures (needs torch)
images             PSNR, SSIM and colourfulness of restored images (needs torch)
inception          Inception features of images, for FID and KID (needs torch)
frechet            moments of features, and the Fréchet distance
kernel             kernel distance (KID)
manifold           precision and recall, nearest neighbours, memorisation

All but ``calibration``, ``inception`` and ``images`` need numpy and scipy alone.
"""
