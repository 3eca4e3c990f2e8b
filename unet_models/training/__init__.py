"""Training of the networks.

fit            training loop
objectives     batch to loss: segmentation, noise prediction, reconstruction, restoration, contrastive alignment
losses         segmentation losses and the contrastive loss
augment        augmentation of volumes
distort        changes of the label map that a cascade is given
reach          voxels around a patch that augmentation reads
modalities     hiding of modalities, so that each may be missing later
optimisation   optimizer, learning-rate schedule, exponential moving average
muon           Muon: momentum whose matrices are orthogonalised
pace           how many steps fit into a time, measured
state          model, optimizer and average at one step
checkpoint     training state as files
transfer       weights of one network as the first ones of another
"""
