#!/usr/bin/env bash
# Runs spear_jax in N processes on this machine, joined by jax.distributed: one process per GPU, or several on the CPU.
#
#   bash launch/processes.sh [--dry-run] N --config=configs/nasa.py --workdir=runs/nasa
#
# Needs    spear_jax installed for `python` (PYTHON names another), and N GPUs where there are GPUs: process i takes
#          GPU i. JAX_PLATFORMS=cpu stays on the CPU. --mode=score runs in one process: without this script.
# Creates  nothing but --workdir. The processes connect through a free port of 127.0.0.1.
# Results  in --workdir, written by process 0 only; the numbers are the same as with one process.
# Resumes  with the same command. Exit code: 0 done, 1 stopped, 2 bad input, else that of the first process that failed.
#          Ctrl-C or SIGTERM saves and stops all. If one process dies, JAX ends the others after about 2 minutes.
#
# In local.sh's environment: bash launch/local.sh bash launch/processes.sh 2 --config=... --workdir=...
# In gpu.sh's: EXTRA=gpu VENV=.venv-gpu JAX_PLATFORMS=cuda,cpu bash launch/local.sh bash launch/processes.sh 2 ...
set -euo pipefail

dry=
if [ "${1:-}" = --dry-run ]; then dry=1 && shift; fi
if ! [[ ${1:-} =~ ^[1-9][0-9]*$ ]]; then
  echo "error: N='${1:-}' must be a number of processes; usage: processes.sh [--dry-run] N --config=... --workdir=..." >&2
  exit 2
fi
count=$1 python=${PYTHON:-python}
shift
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true' INT TERM
for ((i = 0; i < count; i++)); do
  command=(env JAX_COORDINATOR_ADDRESS="127.0.0.1:$port" JAX_NUM_PROCESSES="$count" JAX_PROCESS_ID="$i"
    JAX_LOCAL_DEVICE_IDS="$i" "$python" -m spear_jax.main "$@")
  if [ -n "$dry" ]; then
    printf '%q ' "${command[@]}" && echo '&'
  else
    "${command[@]}" &
    pids+=($!)
  fi
done
if [ -n "$dry" ]; then exit; fi

code=0
for pid in "${pids[@]}"; do
  while kill -0 "$pid" 2>/dev/null; do wait "$pid" || true; done # a signal ends a wait, not the process
  status=0
  wait "$pid" || status=$?
  if [ "$code" -eq 0 ]; then code=$status; fi
done
exit "$code"
