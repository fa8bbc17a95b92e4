#!/usr/bin/env bash
# pydicom does not use pylibjpeg-openjpeg and pylibjpeg-rle unless a third package, pylibjpeg, is installed.
#
# Guess: the packages that contain the decoders are all that pydicom needs: they need no other to decode, and pip installs
# none with them.
# What happens: `pip install pydicom pylibjpeg-openjpeg` leaves JPEG 2000 undecodable; pydicom says that the plugin lacks
# its dependencies. With the pure-Python package pylibjpeg, of which the decoder uses nothing, the same file is read.
# Why it matters: an environment that lists the decoders alone installs without a word, and fails on the first compressed
# series.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 pydicom==3.0.2 pylibjpeg-openjpeg==2.6.0
cd "$folder"
cat > decode.py <<'PYTHON'
import importlib.metadata
import sys

import numpy as np
import pydicom
from openjpeg.utils import decode_pixel_data, encode_buffer
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, JPEG2000Lossless, generate_uid

pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
stream = encode_buffer(pixels.tobytes(), 64, 64, 1, 16, False, photometric_interpretation=2)
assert np.array_equal(np.asarray(decode_pixel_data(bytes(stream))).view("<u2").reshape(64, 64), pixels)
dataset = Dataset()
dataset.file_meta = FileMetaDataset()
dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 64, 64, 1
dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
dataset.BitsAllocated = dataset.BitsStored = 16
dataset.HighBit = 15
dataset.PixelData = encapsulate([bytes(stream)])
try:
    read = "right" if np.array_equal(dataset.pixel_array, pixels) else "other pixels"
except RuntimeError as error:
    read = " ".join(str(error).split())[:200]
print("pydicom", pydicom.__version__, "pylibjpeg-openjpeg", importlib.metadata.version("pylibjpeg-openjpeg"), "->", read)
assert ("missing" in read) == (sys.argv[1] == "without"), read
assert (read == "right") == (sys.argv[1] == "with"), read
PYTHON
"$folder/venv/bin/python" decode.py without
"$folder/venv/bin/pip" install -q pylibjpeg==2.1.0
"$folder/venv/bin/python" decode.py with
