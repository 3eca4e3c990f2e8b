"""Architecture search for segmentation: what is searched over, the stage, its report.

space.py     width, depth, block, skip connections, learning rate
stage.py     stage ``search``: shards to the best settings
page.py      report: Pareto front of Dice and latency, every trial
"""
