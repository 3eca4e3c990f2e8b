"""Captioned images: sources, pictures, shards."""
