"""Segmentation: volumes to a registered segmentation U-Net.

config.py       configuration
planning/       a configuration for a folder of cases, with reasons
pipeline.py     the steps, in order
shard.py        stage: raw cases to shards
cascade.py      stage: samples with the segmentation of another candidate as a further channel
task.py         the training task: network, objective, batches, validation
augmentation.py settings of augmentation that follow from the shards
weights.py      weights of classes in the loss
modalities.py   text and sound of a case for the network that reads them
search/         architecture search: its choices, stage and report
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
champion.py     the champion on the same held-out cases
ablation.py     variants of the skip connections, to be compared
folds.py        runs of each candidate and fold
candidates.py   the best of several configurations
pairs.py        stage: the mean of two candidates, scored
averaging.py    mean of the probabilities of two models that prepare images differently
ensemble.py     stage: trained folds to one model
postprocess.py  steps after the network, chosen by cross-validation
register.py     stage: checkpoint and scores to a registered version
nnunet/         results of nnU-Net to a registered model
pyfunc_model.py the registered model as MLflow runs it
"""
