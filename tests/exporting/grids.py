"""The fields of a NIfTI header that place a volume, by the names that nibabel gives them."""

GRID = ("dim", "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y")
GRID += ("qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units")
