"""Configurations of the smallest pipelines that do everything that the large ones do."""

TINY_SHAPES = """
pipeline: diffusion
registry: {name: tiny-shapes}
data: {layout: shapes, num_shapes: 120, resolution: 16, val_fraction: 0.2, class_from: shape}
train_clip: &loop
  {global_batch_size: 8, num_steps: 4, precision: fp32, num_layers: 1, width: 32, num_heads: 2, num_tokens: 16,
   vocab_size: 600, vector_size: 8, validate_cases: 8, validate_every_steps: 2, checkpoint_every_steps: 2,
   log_every_steps: 1}
train_autoencoder:
  {global_batch_size: 8, num_steps: 4, precision: fp32, channels: [8, 8, 8], validate_cases: 8, ema_decay: 0.9,
   adversarial_weight: 0.01, adversarial_start: 2,
   validate_every_steps: 2, checkpoint_every_steps: 2, log_every_steps: 1}
train:
  global_batch_size: 8
  num_steps: 4
  precision: fp32
  ema_decay: 0.9
  validate_cases: 8
  validate_every_steps: 2
  checkpoint_every_steps: 2
  log_every_steps: 1
  model: {channels: [8, 16], attention_levels: [false, true], num_res_blocks: 1, num_heads: 2, context_dim: 32,
          num_groups: 4}
evaluate: {num_images: 12, batch_size: 4, num_inference_steps: 3, num_shown: 2, num_explained: 1,
           guidance_sweep: [1.0, 3.0]}
compute: {num_workers: 2}
"""

TINY_PHANTOMS = """
registry: {name: tiny}
data: {layout: phantoms, num_phantoms: 8, split_seed: 1}
train:
  patch_size: [32, 32, 32]
  global_batch_size: 2
  num_steps: 6
  precision: fp32
  ema_decay: 0.9
  validate_every_steps: 3
  validate_cases: 2
  checkpoint_every_steps: 3
  log_every_steps: 1
  model: {channels: [4, 8, 16], deep_supervision: 1, skip: [concat, gated_coarse]}
evaluate: {exit_thresholds: [0.5]}
compute: {num_workers: 2}
"""

TINY_RESTORATION = """
pipeline: restoration
registry: {name: tiny-restoration}
task: {name: super_resolution, factor: 2}
data: {layout: shapes, num_shapes: 80, resolution: 32, val_fraction: 0.2}
train:
  patch_size: 16
  global_batch_size: 8
  num_steps: 120
  precision: fp32
  validate_every_steps: 60
  validate_cases: 4
  checkpoint_every_steps: 60
  log_every_steps: 20
  model: {channels: [16, 16], norm: none, num_blocks: 1, num_decoder_blocks: 1}
  optimizer: {learning_rate: 0.004, clip_norm: 1.0, schedule: cosine}
evaluate: {tile: 32, num_shown: 2}
compute: {num_workers: 1}
"""
