"""What each training stage trains. The worker (``flows.train_worker``) runs the loop for any of them.

task.py           what a task must say: the network, its objective, its batches, how it is validated
segmentation.py   the segmentation U-Net
"""
