"""Layouts of raw folders of volumes.

names         rules about file names and declarations that the layouts share
declarations  ``dataset.json`` of the Decathlon and of nnU-Net
labels        declarations of classes
regions       declarations of regions
decathlon     Medical Segmentation Decathlon
nnunet        nnU-Net raw
folders       plain folders of images and masks
dicom         DICOM series as images
find          any of these layouts, recognised by its files, or the generated phantoms
"""
