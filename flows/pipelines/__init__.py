"""One folder per pipeline: its configuration, its steps, a file per stage, and its report.

catalog.py      the pipelines there are, and loading a configuration of any of them
segmentation/   volumes to a registered segmentation U-Net
diffusion/      captioned images to a registered text-to-image model
restoration/    plain images to a registered image-to-image model
"""
