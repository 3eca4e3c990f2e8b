"""Segmentation: volumes to a registered segmentation U-Net.

config.py       configuration
pipeline.py     the steps, in order
shard.py        stage: raw cases to shards
task.py         the training task: network, objective, batches, validation
augmentation.py settings of augmentation that follow from the shards
train.py        stage: shards to a checkpoint
bundle.py       what the weights need beside them
reading.py      a file to a checked and preprocessed image
maps.py         probabilities and uncertainty beside a label map
segmenter.py    a file to a label map in the file's own geometry
explain.py      pictures of attention gates and saliency
evaluate.py     stage: checkpoint to scores and report
mirroring.py    test-time mirroring where it pays
calibration.py  held-out voxels to temperatures
evaluation/     scoring of cases, the report
folds.py        runs of each candidate and fold
candidates.py   the best of several configurations
ensemble.py     stage: trained folds to one model
postprocess.py  steps after the network, chosen by cross-validation
register.py     stage: checkpoint and scores to a registered version
nnunet/         results of nnU-Net to a registered model
pyfunc_model.py the registered model as MLflow runs it
"""
