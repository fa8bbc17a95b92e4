#!/usr/bin/env bash
# Guess: a `.bidsignore` in a derivative is obeyed by the BIDS validator, on its own and within a data set (`--recursive`).
# What happens: validated alone, the derivative has no error. Validated within its data set with `--recursive`, the files that
# its `.bidsignore` names are errors (NOT_INCLUDED).
# Why it matters: a tool cannot keep tables of its own beside the files of its derivative by `.bidsignore`. In `logs/` they pass.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" --quiet install bids-validator-deno==3.0.2
export HOME="$place"
root="$place/tree" derived="$place/tree/derivatives/tool"
mkdir -p "$root/sub-01/anat" "$derived/logs"
"$place/venv/bin/python" - "$root/sub-01/anat/sub-01_T1w.nii.gz" <<'PY'
import gzip, struct, sys
header = bytearray(352)
struct.pack_into("<i", header, 0, 348)
struct.pack_into("<8h", header, 40, 3, 4, 4, 4, 1, 1, 1, 1)
struct.pack_into("<2h", header, 70, 2, 8)
struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 1, 1, 1, 1)
struct.pack_into("<f", header, 108, 352)
header[123] = 2
struct.pack_into("<2h", header, 252, 0, 1)
struct.pack_into("<12f", header, 280, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
header[344:348] = b"n+1\0"
gzip.open(sys.argv[1], "wb").write(bytes(header) + bytes(64))
PY
echo '{"Name": "a", "BIDSVersion": "1.10.0", "DatasetType": "raw"}' > "$root/dataset_description.json"
echo '{"Name": "b", "BIDSVersion": "1.10.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "tool"}]}' \
    > "$derived/dataset_description.json"
echo 'A data set that was made for a test.' | tee "$root/README" > "$derived/README"
printf 'index\tname\n1\tball\n' > "$derived/dseg.tsv"
echo 'a,b' | tee "$derived/table.csv" > "$derived/logs/table.csv"
echo '*.csv' > "$derived/.bidsignore"

errors() {
    { "$place/venv/bin/bids-validator-deno" "$@" --format json 2>/dev/null || true; } | "$place/venv/bin/python" -c '
import json, sys
found = json.load(sys.stdin)
parts = [found, *found.get("derivativesSummary", {}).values()]
issues = [issue for part in parts for issue in part["issues"]["issues"]]
print(*sorted(issue["code"] + issue.get("location", "") for issue in issues if issue["severity"] == "error"))'
}
alone=$(errors "$derived")
within=$(errors "$root" --recursive)
"$place/venv/bin/bids-validator-deno" --version
echo "errors of the derivative alone: ${alone:-none}"
echo "errors within its data set:     ${within:-none}"
[[ -z $alone && $within == "NOT_INCLUDED/table.csv" ]]
