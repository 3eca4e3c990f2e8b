"""File formats of volumes.

base     arrays with their geometry, and checks of headers
nifti    NIfTI by nibabel
itk      NRRD and MetaImage, read by SimpleITK
itk_out  NRRD and MetaImage, written
maps     float32 maps over the voxels of an image, written
images   PNG, JPEG and TIFF by Pillow
tiff     stacks and deep images in TIFF by tifffile
dicom    folders of DICOM slices by pydicom
frames   frames of a multi-frame DICOM file, as slices
slices   which DICOM files are one series, and where its slices lie
"""
