#!/usr/bin/env bash
# One shard of a folder of volumes: an element of an array job. No Dask, no locks between machines.
#
#     sbatch --array=1-20 pipelines/slurm/array.sh RUN INPUT OUTPUT
#
# `submit.sh` starts this and `finish.sh`. An element that was killed or ran out of time goes on where it stopped:
#
#     SHARDS=20 sbatch --array=3,7 pipelines/slurm/array.sh RUN INPUT OUTPUT
#
# The exit status is 3 if some volumes failed; failures.csv names them once all elements have ended.
#SBATCH --job-name=medfcn
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=4G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
set -euo pipefail
run=${1:?RUN INPUT OUTPUT} input=${2:?INPUT} output=${3:?OUTPUT}
shards=${SHARDS:-${SLURM_ARRAY_TASK_COUNT:?start it with sbatch --array}}

# exec: the signal before the end of the time reaches medfcn, which ends in an orderly way.
exec medfcn predict "$run" "$input" -o "$output" --shard "$SLURM_ARRAY_TASK_ID/$shards" \
    --jobs "${SLURM_CPUS_PER_TASK:-1}" --resume
