"""Batches as a pure function of (seed, step).

order     the samples of the batch of a step
patches   positions of training patches, and cutting them out
loader    reading, cutting and stacking; torch's DataLoader over steps
"""
