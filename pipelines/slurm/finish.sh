#!/usr/bin/env bash
# The tables of a folder that shards have filled; needed only where the last of them was killed before it wrote them.
#
#     sbatch --dependency=afterany:JOB pipelines/slurm/finish.sh RUN INPUT OUTPUT
#SBATCH --job-name=medfcn-finish
#SBATCH --mem=2G
#SBATCH --time=00:30:00
set -euo pipefail
run=${1:?RUN INPUT OUTPUT} input=${2:?INPUT} output=${3:?OUTPUT}

exec medfcn predict "$run" "$input" -o "$output" --finish
