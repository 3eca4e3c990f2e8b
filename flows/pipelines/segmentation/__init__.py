"""The stages of the segmentation pipeline: volumes -> registered model."""
