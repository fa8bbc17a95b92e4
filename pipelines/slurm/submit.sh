#!/usr/bin/env bash
# Masks for a folder of volumes by an array job of N shards, and the tables once all have ended.
#
#     pipelines/slurm/submit.sh N RUN INPUT OUTPUT [options of sbatch for the array, such as --partition=cpu]
#
# RUN, INPUT and OUTPUT must have the same paths on all nodes, and `medfcn` must be on the PATH there.
set -euo pipefail
shards=${1:?N RUN INPUT OUTPUT} run=${2:?RUN} input=${3:?INPUT} output=${4:?OUTPUT}
shift 4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

job=$(sbatch --parsable --array="1-$shards" "$@" "$here/array.sh" "$run" "$input" "$output")
job=${job%%;*} # a cluster's name may follow
sbatch --parsable --dependency="afterany:$job" "$here/finish.sh" "$run" "$input" "$output"
echo "array job $job with $shards shards; the tables follow in a job of their own" >&2
