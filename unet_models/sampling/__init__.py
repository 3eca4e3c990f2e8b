"""Noise schedules, samplers and sliding-window prediction.

noise            diffusion process: schedules, noisy latents, training targets, loss weights
conditions       conditions of a denoiser: text, class, and an image of which a part is known
pixels           images scaled to -1..1
samplers         sampling of latents with classifier-free guidance
sliding_window   prediction of images larger than the network's window, with test-time augmentation
probabilities    logits to calibrated probabilities, and their entropy
sweep            order in which a prediction stays within a memory
"""
