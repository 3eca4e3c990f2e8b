"""Models that nnU-Net 2 trained.

plans.py    plans.json and dataset.json to the description of a model
results.py  a folder of results to a registered model
"""
