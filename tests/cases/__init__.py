"""Inputs that have broken pipelines of this kind elsewhere, run against this one, with a verdict for each.

The generators of the inputs are scripts in a folder that the command line names: CASES/segmentation/NN_name.py OUT, and
likewise below CASES/diffusion.

verdict.py        one case: what is expected, what is seen, whether it is right; the table
segmentation.py   the cases of volumes and label maps
data.py           what training makes of a folder, without a cluster
models.py         tiny models, trained and called by the command line
diffusion.py      the cases of captioned images and encoders, judged by diffusion_images.py and diffusion_networks.py
files.py          the folders of one of these
"""
