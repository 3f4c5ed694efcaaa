#!/usr/bin/env bash
# A Slurm of two nodes on this host, for the tests and for trying the jobs: Debian's slurm-wlm and munge, run as root from a folder of
# its own. It touches no Slurm that is installed as a service.
#   slurm/local-cluster.sh start     starts munged, slurmctld and two slurmd (n1, n2), and waits until both nodes are idle
#   slurm/local-cluster.sh stop      ends them and removes the folder
#   slurm/local-cluster.sh status    exit code 0 where it runs
#   eval "$(slurm/local-cluster.sh env)"    what a shell needs for sbatch, srun, squeue to talk to it
# Environment: FAIRGPTQ_CLUSTER=DIR  the folder for keys, state and logs (default /tmp/fairgptq-cluster)
#              NODE_CPUS=N           processors that each node claims to have (default 4, however many there are)
set -euo pipefail

folder=${FAIRGPTQ_CLUSTER:-/tmp/fairgptq-cluster}
cpus=${NODE_CPUS:-4}
first_port=${FAIRGPTQ_CLUSTER_PORT:-17817}
export SLURM_CONF=$folder/slurm.conf

fail() {
    echo "local-cluster: $*" >&2
    exit "${code:-1}"
}

running() { # NAME: whether the process of its pid file lives, and is that daemon
    local pid
    pid=$(cat "$folder/$1.pid" 2>/dev/null) && [[ -n $pid && $(cat "/proc/$pid/comm" 2>/dev/null) == "${1%-n[12]}" ]]
}

check_folder() { # start and stop remove it
    [[ ! -e $folder ]] || grep -qs '^ClusterName=local$' "$SLURM_CONF" || [[ -d $folder && -z $(ls -A "$folder") ]] ||
        { code=2; fail "FAIRGPTQ_CLUSTER=$folder is not the folder of such a cluster"; }
}

write_configuration() {
    local user memory
    user=$(id -un)
    memory=$(awk '/MemTotal/ {print int($2 / 1024 / 2)}' /proc/meminfo)
    cat >"$SLURM_CONF" <<CONF
ClusterName=local
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$first_port
SlurmUser=$user
SlurmdUser=$user
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
# Short, so that a test of a dead node, a time limit or a requeue need not wait for minutes.
SlurmdTimeout=10
KillWait=5
InactiveLimit=0
OverTimeLimit=0
MinJobAge=600
JobRequeue=1
ReturnToService=2
RebootProgram=/bin/true
# Eight GPUs that are not there, so that jobs that ask for some can be tried.
GresTypes=gpu
NodeName=n1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((first_port + 1)) Gres=gpu:8 CPUs=$cpus RealMemory=$memory State=UNKNOWN
NodeName=n2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((first_port + 2)) Gres=gpu:8 CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF
    touch "$folder"/gpu{0..7}
    echo "Name=gpu File=$folder/gpu[0-7]" >"$folder/gres.conf"
    # It needs no cgroups, and slurmd does not start where it finds none, as in many containers. Older ones cannot be told so.
    local version
    version=$(slurmd -V)
    if printf '%s\n' 24.11 "${version##* }" | sort --version-sort --check=quiet; then
        echo "CgroupPlugin=disabled" >"$folder/cgroup.conf"
    fi
}

start_node() { # NAME
    slurmd -N "$1" -f "$SLURM_CONF"
}

start() {
    local program looks=0
    code=2
    [[ $EUID -eq 0 ]] || fail "the daemons must be started by root"
    for program in munged slurmctld slurmd sinfo; do
        command -v "$program" >/dev/null || fail "$program is missing: apt-get install slurm-wlm munge"
    done
    [[ $cpus =~ ^[1-9][0-9]*$ ]] || fail "NODE_CPUS=$cpus is not a positive whole number"
    code=1
    if running slurmctld; then
        echo "local-cluster: runs already, in $folder"
        return
    fi
    check_folder
    rm -rf "$folder"
    mkdir -p "$folder" "$folder/state" "$folder/spool-n1" "$folder/spool-n2"
    chmod 755 "$folder"
    write_configuration # before anything may fail: by it the folder is known
    mkdir -m 700 "$folder/munge"
    (umask 077 && head -c 1024 /dev/urandom >"$folder/munge/key")
    trap end_daemons EXIT # where one of them does not start; what they wrote stays
    munged --force --key-file="$folder/munge/key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" 2>"$folder/munged.err" ||
        fail "munged did not start: $(tail -1 "$folder/munged.err")"
    slurmctld -f "$SLURM_CONF" || fail "slurmctld did not start: $(tail -1 "$folder/slurmctld.log")"
    until running slurmctld || ((++looks > 100)); do sleep 0.1; done # its pid file comes a moment later
    start_node n1 || fail "slurmd n1 did not start: $(tail -1 "$folder/slurmd-n1.log")"
    start_node n2 || fail "slurmd n2 did not start: $(tail -1 "$folder/slurmd-n2.log")"
    local second
    for ((second = 0; second < 120; second++)); do
        if [[ $(sinfo --noheader --format=%t 2>/dev/null | sort -u) == idle ]]; then
            trap - EXIT
            echo "local-cluster: two nodes of $cpus processors; eval \"\$($0 env)\" lets a shell use them"
            return
        fi
        sleep 0.5
    done
    fail "the nodes did not come up: see $folder/slurmctld.log"
}

end_daemons() {
    local name pid
    for name in slurmd-n1 slurmd-n2 slurmctld munged; do
        running "$name" || continue
        pid=$(<"$folder/$name.pid")
        kill "$pid" 2>/dev/null || true
        for ((wait = 0; wait < 100; wait++)); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
    done
}

stop() {
    [[ -d $folder ]] || return 0
    check_folder
    if running slurmctld; then scancel --user="$(id -un)" 2>/dev/null || true; fi
    end_daemons
    rm -rf "$folder"
}

case "${1-}" in
    start) start ;;
    stop) stop ;;
    status)
        if ! running munged || ! running slurmctld; then
            echo "local-cluster: not running"
            exit 1
        fi
        sinfo --Node --format="%N %t %C"
        ;;
    node) # for tests: starts the slurmd of a node that died
        [[ ${2-} == n1 || ${2-} == n2 ]] || { code=2; fail "usage: $0 node n1|n2"; }
        start_node "$2"
        ;;
    env)
        # Both nodes have this host's addresses, and Open MPI 5 sees no way from one of its own to the same.
        printf 'export SLURM_CONF=%q FAIRGPTQ_CLUSTER=%q OMPI_MCA_btl_tcp_if_include=lo\n' "$SLURM_CONF" "$folder"
        ;;
    *)
        code=2
        fail "usage: $0 start|stop|status|env"
        ;;
esac
