"""Noise schedules, samplers and the sliding window."""
