"""Bounded, checked decoding that volumes and images share."""
