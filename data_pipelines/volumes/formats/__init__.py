"""File formats of volumes.

base     arrays with their geometry, and checks of headers
nifti    NIfTI by nibabel
itk      NRRD and MetaImage by SimpleITK
images   PNG, JPEG and TIFF by Pillow
tiff     stacks and deep images in TIFF by tifffile
dicom    folders of DICOM slices by pydicom
slices   which DICOM files are one series, and where its slices lie
"""
