"""Stages that shard raw data for several pipelines.

images   images, with or without captions
"""
