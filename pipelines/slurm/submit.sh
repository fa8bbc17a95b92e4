#!/usr/bin/env bash
# Masks for a folder of volumes by an array job of N shards, and the tables once all have ended.
#
#     pipelines/slurm/submit.sh N RUN INPUT OUTPUT [options of sbatch for the array, such as --partition=cpu]
#
# RUN, INPUT and OUTPUT must have the same paths on all nodes, and `medfcn` must be on the PATH there.
set -euo pipefail
shards=$1 run=$2 input=$3 output=$4
shift 4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

job=$(sbatch --parsable --array="1-$shards" "$@" "$here/array.sh" "$run" "$input" "$output")
job=${job%%;*} # a cluster's name may follow
sbatch --parsable --dependency="afterany:$job" "$here/finish.sh" "$run" "$input" "$output"
echo "array job $job with $shards shards; the tables follow in a job of their own" >&2
