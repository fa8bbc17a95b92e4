#!/usr/bin/env bash
# Masks for a folder of volumes by a Dask cluster inside one allocation: a scheduler, and a worker in every other task.
#
#     sbatch --ntasks=17 pipelines/slurm/dask.sh RUN INPUT OUTPUT
#
# With GPUs, ask for one a task (--gpus-per-task=1). A worker that is killed has its volume done by another. Whoever
# reaches the scheduler can run code in the allocation: the cluster's network must be trusted.
#SBATCH --job-name=medfcn-dask
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=4G
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
run=${1:?RUN INPUT OUTPUT} input=${2:?INPUT} output=${3:?OUTPUT}
workers=$((${SLURM_NTASKS:?start it with sbatch --ntasks} - 1))
[ "$workers" -ge 1 ] || { echo "dask.sh: --ntasks is 1; give 2 or more, for a scheduler and its workers" >&2; exit 2; }
folder=$(mktemp -d -p "${SLURM_SUBMIT_DIR:-.}" .medfcn-dask.XXXXXX) # where all nodes see it
file=$folder/scheduler.json

end() {
    jobs -p | xargs -r kill 2>/dev/null || true
    wait || true
    rm -rf "$folder"
}
trap end EXIT
trap 'exit 143' TERM

srun --ntasks=1 --nodes=1 --exact dask scheduler --port 0 --dashboard-address 127.0.0.1:0 --scheduler-file "$file" &
scheduler=$!
until [ -s "$file" ]; do # else the allocation would wait for its whole time
    if ! kill -0 "$scheduler" 2>/dev/null && [ ! -s "$file" ]; then
        echo "dask.sh: the scheduler has ended before it began; is dask on the PATH of the nodes?" >&2
        exit 1
    fi
    sleep 1
done
# Each worker has a nanny, which starts it again if it is killed.
srun --ntasks="$workers" --exact dask worker --scheduler-file "$file" --nthreads 1 --no-dashboard \
    --local-directory "${TMPDIR:-/tmp}" &

medfcn predict "$run" "$input" -o "$output" --cluster "$file" --resume &
wait $! # a signal is handled at once here, which it would not be in the foreground
