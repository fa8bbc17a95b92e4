"""The steps of medfcn as MONAI transforms, and as a MONAI `Inferer`."""
