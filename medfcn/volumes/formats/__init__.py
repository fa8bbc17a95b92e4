"""One file format each: NIfTI, NRRD, MetaImage. `medfcn.volumes.reading` is the door to them."""
