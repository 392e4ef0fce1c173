#!/usr/bin/env bash
# A Slurm of two nodes on this machine, for tests: slurm.sh start FOLDER, or slurm.sh stop FOLDER.
# It needs root and Debian's packages slurm-wlm and munge, and installs them where they are missing. Configuration, state,
# logs and process ids lie in FOLDER; a command reaches this Slurm with SLURM_CONF=FOLDER/slurm.conf.
set -euo pipefail

action=${1:?start or stop}
folder=${2:?a folder for state and logs}
export SLURM_CONF=$folder/slurm.conf

stop() {
  local file
  for file in "$folder"/slurmctld.pid "$folder"/slurmd-*.pid "$folder"/munged.pid; do
    if [ -f "$file" ]; then kill -9 "$(cat "$file")" 2>/dev/null || true; fi
  done
}

configure() {
  local host
  host=$(hostname -s)
  cat > "$SLURM_CONF" <<CONF
ClusterName=palinode
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
JobRequeue=1
# A node that falls silent is given up soon, and its jobs are queued again.
SlurmdTimeout=15
ReturnToService=2
KillWait=5
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=17101 CPUs=1 RealMemory=6000
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=17102 CPUs=1 RealMemory=6000
PartitionName=test Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
CONF
}

start() {
  if ! command -v slurmctld >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge procps >/dev/null
  fi
  mkdir -p "$folder"/state "$folder"/spool /run/munge
  chown munge:munge /run/munge
  if ! pgrep munged >/dev/null; then
    su munge -s /bin/sh -c munged
    pgrep munged > "$folder"/munged.pid
  fi
  configure
  slurmctld
  slurmd -N n1
  slurmd -N n2
  for _ in $(seq 30); do
    if [ "$(sinfo --noheader --states=idle --format=%D)" = 2 ]; then return; fi
    sleep 1
  done
  echo "error: the two nodes did not become idle: see $folder/slurmctld.log" >&2
  exit 1
}

"$action"
