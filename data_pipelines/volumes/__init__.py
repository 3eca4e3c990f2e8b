"""Medical volumes: sources, checks, preprocessing and shards.

specs         configuration
classes       values in label files to numbers of classes, and back
cases         files of a subject's image and label
modalities    text and sound beside an image
formats       file formats
files         reading any of the formats
phantoms      generated volumes
scenes        generated images whose text and sound say what is meant
sources       layouts of raw folders
grids         is the grid of two files the same
labels        rules of a label map
dicom_labels  segmentations and structure sets of DICOM as labels
dicom_out     label maps as segmentations of DICOM
contours      polygons to masks
checks        rules of an image, of a case and of a data set
leaks         copies of a scan, and scans of one patient
spacing       spacing of a data set, axis of thick slices
resampling    images, label maps and logits on another grid
preprocess    raw case to training sample, and label maps back
restore       predicted logits to the label map as stored, plane by plane
fingerprint   statistics per case and over the data set
trained_range range of what a model was trained on
splits        training and validation cases
sharding      checked, preprocessed samples in shards, over a Ray cluster
"""
