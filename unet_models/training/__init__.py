"""Training of the networks.

fit            training loop
objectives     batch to loss: segmentation, noise prediction, reconstruction, restoration, contrastive alignment
losses         segmentation losses and the contrastive loss
augment        augmentation of volumes
distort        changes of the label map that a cascade is given
reach          voxels around a patch that augmentation reads
optimisation   optimizer, learning-rate schedule, exponential moving average
state          model, optimizer and average at one step
checkpoint     training state as files
"""
