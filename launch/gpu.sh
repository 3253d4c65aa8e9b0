#!/usr/bin/env bash
# Runs spear_jax on all GPUs of this machine, in one process, and sets up its environment first.
#
#   bash launch/gpu.sh [--dry-run] --config=configs/nasa.py --workdir=runs/nasa
#
# Needs    Linux, NVIDIA GPUs with a driver for CUDA 13 (580 or newer), python3 (>= 3.11, with pip and venv) and a
#          package index. PYTHON and VENV are those of local.sh; CUDA_VISIBLE_DEVICES=0,1 picks GPUs.
# Creates  .venv-gpu, once (some GB: CUDA comes with JAX's wheels).
# Results  in --workdir; a gs:// one needs EXTRA=gpu,gcs.
# Resumes  with the same command, whatever interrupted it. Exit code: 0 done, 1 stopped, 2 bad input.
#
# For one process per GPU, use processes.sh. The wheels were checked for compatibility; training ran on one H200, this script did not.
set -euo pipefail
cd "$(dirname "$0")/.."

dry=
if [ "${1:-}" = --dry-run ]; then dry=1 && shift; fi
if [ $# -eq 0 ]; then sed -n '2,/^set/p' launch/gpu.sh | sed '$d; s/^# \{0,1\}//'; exit 2; fi

# JAX_PLATFORMS names the GPU, so that JAX fails if it finds none, instead of running slowly on the CPU.
command=(env "JAX_PLATFORMS=cuda,cpu" EXTRA="${EXTRA:-gpu}" VENV="${VENV:-.venv-gpu}"
  bash launch/local.sh python -m spear_jax.main "$@")
if [ -n "$dry" ]; then
  printf '%q ' "${command[@]}" && echo
  exit
fi
if ! nvidia-smi --list-gpus | grep -q .; then
  echo "error: nvidia-smi lists no GPU; needed are an NVIDIA GPU and its driver (launch/local.sh runs on the CPU)" >&2
  exit 2
fi
exec "${command[@]}"
