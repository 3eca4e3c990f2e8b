"""Restoration: plain images to a registered image-to-image model.

config.py         configuration
pipeline.py       the steps, in order
task.py           the training task: network, objective, batches, validation
clips.py          frames of one clip, and how much they change
colours.py        weights of quantised colours that follow from the shards
train.py          stage: shards to a checkpoint
image_restorer.py a file or an array to a restored image
evaluate.py       stage: checkpoint to scores and report
evaluation/       scoring of images, the report
champion.py       the champion on the same held-out images
register.py       stage: checkpoint and scores to a registered version
pyfunc_model.py   the registered model as MLflow runs it
"""
