"""Pipelines and stages as jobs of a Ray cluster: sent once, found again, followed from anywhere, cancelled as a whole.

A pipeline is a job that runs the flow; each of its stages is a job of its own, named by the stage's key. Whoever asks
for a stage that is running, after a retry or from a pipeline started again, follows the job that is there.
"""
