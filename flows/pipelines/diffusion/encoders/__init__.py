"""The encoders: a CLIP for captions, an autoencoder for images; trained here, or given as folders.

stages.py             stages: train either, or adopt the given one
given.py              checks of given folders, and adopting them
clip_task.py          the training task of the small CLIP
autoencoder_task.py   the training task of the autoencoder
"""
