#!/usr/bin/env bash
# A SLURM on this machine's loopback, for tests; nothing outside FOLDER is written, so several can live beside each
# other and beside a real one. Runs as any user, without systemd.
#
#   apt-get install --no-install-recommends slurmctld slurmd slurm-client slurmdbd munge mariadb-server
#   tools/slurm_local.sh start FOLDER && export SLURM_CONF=FOLDER/slurm.conf
#   tools/slurm_local.sh stop FOLDER
#
# `start` exits with 77 and says why where the packages are missing. Environment: SLURM_NODES (1; further ones are
# daemons on the same machine), SLURM_NODE_CPUS (2), SLURM_NODE_MB (4000). The accounting daemon and its data base are
# not for show: submitit learns from `sacct` that a job died without leaving a result.
set -euo pipefail

usage() { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[[ $# == 2 && $1 =~ ^(start|stop)$ ]] || usage
action=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)
export PATH="$PATH:/usr/sbin:/sbin"
export SLURM_CONF="$folder/slurm.conf"
socket="$folder/munge/socket" # the key of every message between the daemons

nodes=${SLURM_NODES:-1}

# The daemons in the order of their start, and each has a file run/NAME.pid.
daemons=(munged mariadbd slurmdbd slurmctld)
for ((i = 1; i <= nodes; i++)); do daemons+=("node$i"); done

running() { [[ -s $folder/run/$1.pid ]] && kill -0 "$(<"$folder/run/$1.pid")" 2>/dev/null; }

# Wait up to 20 s for a command to succeed.
await() {
  for _ in $(seq 200); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  echo "slurm_local: '$*' did not succeed within 20 s; logs: $folder/log" >&2
  return 1
}

gone() { ! running "$1"; }

no_jobs() { [[ -z $(squeue --noheader) ]]; }

stop() {
  if running slurmctld; then # what runs would outlive the daemons
    scancel --user="$(id -un)" || true
    await no_jobs || true
  fi
  for file in "$folder"/run/node*.pid; do # of an earlier start, which may have had more
    [[ -e $file ]] && daemons+=("$(basename "$file" .pid)")
  done
  for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do
    if running "${daemons[i]}"; then
      kill "$(<"$folder/run/${daemons[i]}.pid")"
      await gone "${daemons[i]}" || kill -KILL "$(<"$folder/run/${daemons[i]}.pid")"
    fi
    rm -f "$folder/run/${daemons[i]}.pid"
  done
}

free_ports() {
  python3 - "$1" <<'PYTHON'
import socket
import sys

held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(each.getsockname()[1] for each in held))
PYTHON
}

configure() {
  read -r control accounting ports < <(free_ports $((2 + nodes)))
  local me host port number=0
  me=$(id -un) host=$(hostname -s)
  cat >"$folder/slurm.conf" <<CONF
ClusterName=seqrl
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$control
SlurmUser=$me
SlurmdUser=$me
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
# A requeued job waits until the credentials of its last start have expired: 120 s unless told otherwise.
AuthInfo=socket=$socket,cred_expire=5
# A preempted job gets the signal of its --signal option, and GraceTime to react to it.
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
MinJobAge=600
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=$((${SLURM_NODE_MB:-4000} / ${SLURM_NODE_CPUS:-2}))
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
ReturnToService=2
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$accounting
AccountingStoragePass=$socket
StateSaveLocation=$folder/state/controller
SlurmdSpoolDir=$folder/state/%n
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/%n.log
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
NodeName=DEFAULT CPUs=${SLURM_NODE_CPUS:-2} RealMemory=${SLURM_NODE_MB:-4000}
CONF
  for port in $ports; do
    number=$((number + 1))
    echo "NodeName=node$number NodeHostname=$host NodeAddr=127.0.0.1 Port=$port State=UNKNOWN" >>"$folder/slurm.conf"
  done
  (umask 077; cat >"$folder/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=$socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$accounting
SlurmUser=$me
PidFile=$folder/run/slurmdbd.pid
LogFile=$folder/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_accounting
CONF
  )
}

start() {
  local missing=()
  for program in munged mariadbd mariadb-install-db slurmdbd slurmctld slurmd sbatch; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  if ((${#missing[@]})); then
    echo "slurm_local: not installed: ${missing[*]}; see the first lines of $0" >&2
    exit 77
  fi
  if running slurmctld && running "node$nodes"; then return 0; fi
  stop
  mkdir -p "$folder"/{run,log,munge,state/controller}
  chmod 755 "$folder" "$folder/munge"
  configure

  [[ -s $folder/munge/key ]] || (umask 077; head -c 1024 /dev/urandom >"$folder/munge/key")
  munged --force --socket "$socket" --key-file "$folder/munge/key" --pid-file "$folder/run/munged.pid" \
    --log-file "$folder/log/munged.log" --seed-file "$folder/munge/seed" 2>>"$folder/log/munged.log"

  local data="$folder/state/accounting" database="$folder/run/database.sock"
  if [[ ! -d $data/mysql ]]; then
    mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$data" --skip-test-db \
      --auth-root-authentication-method=normal >"$folder/log/mariadb-install.log" 2>&1
  fi
  setsid mariadbd --no-defaults --user="$(id -un)" --datadir="$data" --socket="$database" --skip-networking \
    --pid-file="$folder/run/mariadbd.pid" --innodb-buffer-pool-size=32M \
    </dev/null >"$folder/log/mariadbd.log" 2>&1 &
  await mariadb-admin --no-defaults --user=root --socket="$database" ping
  MYSQL_UNIX_PORT="$database" slurmdbd # its configuration has no line for a socket
  await sacctmgr -n show cluster
  sacctmgr -i add cluster seqrl >"$folder/log/sacctmgr.log" 2>&1 || true # known from an earlier start
  slurmctld
  await scontrol ping
  for ((i = 1; i <= nodes; i++)); do
    mkdir -p "$folder/state/node$i"
    slurmd -N "node$i"
  done
  await eval '[[ $(sinfo -h -p main -o "%T %D") == "idle $nodes" ]]'
}

"$action"
