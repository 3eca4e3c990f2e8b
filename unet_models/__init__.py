"""Networks: their training, sampling, file formats and metrics. Knows tensors, neither data sets nor clusters.

Layers, lower ones first; no import runs back up:

specs                    configuration, without torch
precision                autocast
distributed              ranks, sums and maxima over them
sampling                 noise schedules, samplers, sliding window
networks                 one file per network, and the blocks they share
restoration              tasks of image restoration: degradation, losses, tiles
training                 the loop, objectives, losses, augmentation, optimizer, checkpoints
formats                  diffusers and CLIP folders, ONNX, torch.export
metrics                  Dice, surfaces, Fréchet distance, KID
"""
