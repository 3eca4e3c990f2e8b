"""File formats of volumes.

base     arrays with their geometry, and checks of headers
nifti    NIfTI by nibabel
images   PNG, JPEG and TIFF by Pillow
dicom    folders of DICOM slices by pydicom
"""
