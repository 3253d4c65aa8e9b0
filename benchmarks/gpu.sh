#!/usr/bin/env bash
# Measures SPEAR on one NVIDIA GPU: parity with the CPU, the quickstart, speed and memory beside torch + PEFT, many
# detectors at once, and variants of attention. Takes at most --budget seconds and writes
# benchmarks/results/DEVICE.json, from which `python benchmarks/tables.py` makes the table in benchmarks/README.md.
#
#   bash benchmarks/gpu.sh [--budget=600] [--only=WORDS] [--results=FOLDER]
#   bash benchmarks/gpu.sh --compile-only --cache=FOLDER     only compiles, perhaps beside other work on the GPU
#   bash benchmarks/gpu.sh --cache=FOLDER                    only measures, with what was compiled before
#   bash benchmarks/gpu.sh --cpu --results=FOLDER            the same parts with tiny shapes, to try the programs
#
# PYTHON (default: python3) is used if it can import spear_jax and finds a GPU; otherwise launch/local.sh sets up
# .venv-gpu. torch, transformers and PEFT are measured where they are installed.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

python=${PYTHON:-python3}
for word in "$@"; do
  if [ "$word" = --cpu ]; then export JAX_PLATFORMS=cpu; fi
done
# A CUDA plugin in this Python is enough; looking for a GPU takes seconds, so it is done only without one.
quick='import sys, pkgutil; names = {m.name for m in pkgutil.iter_modules()}
plugin = names & {"jax_cuda12_plugin", "jax_cuda13_plugin"}
sys.exit(not (plugin and {"jax", "spear_jax", "ml_collections", "flax", "optax"} <= names))'
check='import sys, jax, spear_jax; sys.exit(jax.default_backend() not in ("gpu", sys.argv[1]) and "no GPU")'
if "$python" -c "$quick" 2>/dev/null || said=$("$python" -c "$check" "${JAX_PLATFORMS:-gpu}" 2>&1); then
  exec "$python" benchmarks/gpu.py "$@"
fi
echo "$python does not do (${said##*$'\n'}); setting up an environment"
PYTHON=$python EXTRA=gpu VENV="${VENV:-.venv-gpu}" exec bash launch/local.sh python benchmarks/gpu.py "$@"
