"""DICOM series: headers and pixels through pydicom, the grid from the position of every slice.

The one door to pydicom. SimpleITK is not used: it takes positions and rescale of the first slice for all.
"""
