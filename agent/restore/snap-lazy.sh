#!/bin/sh
# Brings a lazily restored container its memory, or ends that container: with the daemon gone, the pages that have not
# arrived would read as zeros and nobody would know. Runs in a session and cgroup of its own, outlives the agent.
#
#   snap-lazy run WORK     WORK/lazy.plan → WORK/lazy.pid, WORK/lazy-pages.socket, WORK/lazy.result (by rename)
#   snap-lazy settle WORK  what `run` does when the daemon has ended, for when `run` itself was killed
#
# The wrapper says `lazy.on` before it restores (lines runtime=, root=) and `lazy.off` when the restore is given up;
# only between the two may the container be killed: after `off` its id belongs to one that started cold.
# Plans are lines key=value; values are read, never evaluated.
set -u
umask 077
LC_ALL=C
export LC_ALL

value() { # value FILE KEY → $found, the first value of KEY
  found=
  while IFS= read -r line; do
    case $line in "$2="*) found=${line#*=}; return 0 ;; esac
  done <"$1"
  return 1
} 2>/dev/null

result() { # OUTCOME; by rename, so that it is whole or not there
  printf 'outcome=%s\nstatus=%s\ndied=%s\nbegun_ns=%s\nended_ns=%s\n' \
    "$1" "$status" "$died" "$begun_ns" "$(date +%s%N)" >"$work/lazy.result.tmp"
  mv -f "$work/lazy.result.tmp" "$work/lazy.result"
}

first_process() { # → $pid if the container's first process lives; starts no program: this must be quick
  for file in "$bundle/init.pid" "$bundle/pidfile"; do
    pid=
    { read -r pid <"$file"; } 2>/dev/null
    case $pid in '' | *[!0-9]*) continue ;; esac
    { read -r stat <"/proc/$pid/stat"; } 2>/dev/null || continue
    case ${stat##*) } in [ZX]*) continue ;; esac
    { while IFS= read -r line; do # not a stranger with a pid used again
      case $line in *"$id"*) return 0 ;; esac
    done <"/proc/$pid/cgroup"; } 2>/dev/null
  done
  return 1
}

end_container() { # until nothing of it lives, or it is not ours any more
  killed=
  while [ ! -e "$work/lazy.off" ]; do
    if first_process; then
      kill -KILL "$pid" 2>/dev/null
      killed=1
      value "$work/lazy.on" runtime && runtime=$found
      value "$work/lazy.on" root && root=$found
      # what does not die with its first process: a container in another's PID namespace
      timeout 10 "$runtime" ${root:+--root "$root"} kill --all "$id" KILL >/dev/null 2>&1
    elif [ -n "$killed" ]; then
      result killed
      return
    elif [ ! -e "$state.restored" ]; then # it was let go and has ended by itself, or was deleted
      result ended
      return
    fi
    sleep 0.02
  done
  result abandoned
}

died() {
  died=1
  : >"$state.lost" # a wrapper that reads this does not let the container go
  if [ -e "$work/lazy.on" ]; then end_container; else result abandoned; fi
}

all_there() { # the daemon's own words, one line for each process; without them nothing is believed
  set -- "$images"/mm-*.img
  [ "$(grep -c 'UFFD transferred pages' "$work/lazy-pages.log")" -ge $# ]
}

run() {
  read -r stat </proc/$$/stat
  # shellcheck disable=SC2086 # fields of proc_pid_stat(5), the 22nd is the start time
  set -- ${stat##*) }
  printf '%s %s\n' $$ "${20}" >"$work/lazy.pid.tmp" && mv "$work/lazy.pid.tmp" "$work/lazy.pid" || exit 1
  child=
  trap 'if [ -e "$work/lazy.off" ] && [ -n "$child" ]; then kill -KILL "$child"; fi' TERM
  trap '' INT HUP
  criu lazy-pages --images-dir "$images" --work-dir "$work" --log-file lazy-pages.log -v4 </dev/null &
  child=$!
  status=0
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do # a signal to us ends wait early
    status=0
    wait "$child" || status=$?
  done
  settle
}

settle() { # the daemon has ended
  if [ -e "$work/lazy.off" ]; then
    result abandoned
  elif [ "$status" -eq 0 ] && all_there; then
    result complete
  else
    died
  fi
}

work=$2
value "$work/lazy.plan" images && images=$found
value "$work/lazy.plan" bundle && bundle=$found
value "$work/lazy.plan" id && id=$found
value "$work/lazy.plan" state && state=$found
runtime=runc root='' status=0 died=0 begun_ns=$(date +%s%N)
case $1 in
  run) run ;;
  settle) [ -e "$work/lazy.result" ] || settle ;;
  *) echo "usage: snap-lazy run WORK | snap-lazy settle WORK" >&2; exit 2 ;;
esac
