#!/bin/sh
# Dumps the containers of one job and lets them run again, whatever happens to the agent.
#
#   snap-dump run FOLDER      FOLDER/plan, FOLDER/<n>/plan → FOLDER/pid, FOLDER/result (by rename)
#   snap-dump cut FOLDER/<n>  CRIU's action script: copies the files while the processes stand still
#
# Plans are lines key=value; values are read, never evaluated. Nothing starts a process inside the
# window that can be started outside of it, and nothing waits for the disk.
#
# CRIU is asked to stop, not killed: while it enters or leaves a process its death is the process's
# (SIGTRAP). To stop it, its action script fails; CRIU then puts everything back itself.
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
}

is_used() { # is_used DIRECTORY: something is in it
  for entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    if [ -e "$entry" ] || [ -L "$entry" ]; then return 0; fi
  done
  return 1
}

tell_time() { # $now, in hundredths of a second; no process is started for it
  read -r now _ </proc/uptime
  now=${now%.*}${now#*.}
}

cut() { # exit status 1 of tar: a file changed while it was read, by a container that is not frozen
  read -r deadline <"$1/../deadline"
  tell_time
  if [ "$now" -gt "$deadline" ]; then
    : >"$1/../late"
    return 1
  fi
  while IFS= read -r line; do
    case $line in
      copy=*) only_used= ;;
      copy_used=*) only_used=1 ;;
      *) continue ;;
    esac
    line=${line#*=}
    source=${line%%|*}
    target=${line#*|}
    if [ -n "$only_used" ]; then is_used "$source" || continue; fi
    sparse=--sparse # a volume's holes are no bytes; the layer that is made of the upper directory has none
    case $target in */raw/*) sparse= ;; esac
    # shellcheck disable=SC2086 # one word or none
    tar --create $sparse --file="$target" --directory="$source" --format=posix --numeric-owner \
      --xattrs --xattrs-include='*' --one-file-system --sort=name \
      --pax-option=delete=atime,delete=ctime . </dev/null
    if [ $? -gt 1 ]; then return 1; fi
  done <"$1/plan"
  return 0
}

each() { # each COMMAND: run it for every container, its plan loaded
  n=0
  while [ "$n" -lt "$count" ]; do
    here=$folder/$n
    value "$here/plan" container && container=$found
    value "$here/plan" binary && binary=$found
    value "$here/plan" root && root=$found
    value "$here/plan" was_paused && was_paused=$found
    "$1" || return 1
    n=$((n + 1))
  done
}

is_apart() { # whether this runs in our own cgroup, which no pod's memory limit counts
  apart=1
  while IFS=: read -r _ controllers path; do
    case $controllers in
      *memory*) case $path in */snap-agent) return 0 ;; *) return 1 ;; esac ;;
      '') case $path in */snap-agent) apart=0 ;; esac ;;
    esac
  done </proc/self/cgroup
  return "$apart"
}

lodge() { # pages on a tmpfs are charged to who writes them
  value "$here/plan" images && images=$found
  parts=${images%/*}
  mark=${parts%/*/*}/in-memory/${parts##*/}
  [ -e "$mark" ] || return 0
  is_apart || { umount -l "$images" && rm -f "$mark"; }
}

owns_cgroups() { # owns_cgroups PID: $container has others than those that its runtime made, or that can't be seen
  while IFS=: read -r _ name path; do
    [ "$path" != / ] || continue # the node's
    case ${path##*/} in *"$container"*) ;; *) return 0 ;; esac
    name=${name#name=}
    place=/sys/fs/cgroup/${name:-unified}$path
    [ -d "$place" ] || return 0
    for below in "$place"/*/; do
      [ ! -d "$below" ] || return 0
    done
  done <"/proc/$1/cgroup" || return 0
  return 1
}

freeze() {
  [ "$was_paused" = 0 ] || return 0
  "$binary" --root "$root" pause "$container"
}

thaw() { # of a container that runs this fails, and that is fine
  [ "$was_paused" = 0 ] || return 0
  "$binary" --root "$root" resume "$container" 2>/dev/null
  return 0
}

once() { # one try at dumping $container; its runtime and CRIU are in a process group of their own
  # shellcheck disable=SC2086 # the flags are ours, and words
  HOME=$here/home timeout -s KILL "$hard_s" "$binary" --root "$root" --log "$work/runc.log" \
    --log-format json checkpoint --image-path "$images" --work-path "$work" $flags "$container" \
    </dev/null >"$work/runc.out" 2>&1 &
  child=$!
  wait "$child"
  status=$?
  while kill -0 "$child" 2>/dev/null; do # a signal to us ends wait early
    wait "$child"
    status=$?
  done
  patience=$((hard_s * 10)) # CRIU goes on, and ends by itself, when its runtime was killed
  while [ "$patience" -gt 0 ] && kill -0 -- "-$child" 2>/dev/null; do
    sleep 0.1
    patience=$((patience - 1))
  done
  kill -KILL -- "-$child" 2>/dev/null
  return "$status"
}

dump() {
  value "$here/plan" images && images=$found
  value "$here/plan" work && work=$found
  value "$here/plan" flags && flags=$found
  value "$here/plan" flags_without_cgroups
  unread=$found
  if [ -n "$unread" ] && value "$here/plan" pid && ! owns_cgroups "$found"; then flags="$flags $unread"; fi
  for attempt in 1 2; do
    once && return 0
    [ -z "$stopped" ] && [ "$attempt" = 1 ] || break
    # a process that was being started in the container (exec) at the wrong moment
    grep -q -e 'Unable to wait processes' -e 'Timeout reached' "$work/dump.log" || break
    each_thawed_but_ours
    rm -f "$images"/*
  done
  failed=$n
  return 1
}

each_thawed_but_ours() { # CRIU may have left the freezer on; our own pause of several stays
  [ "$pause" = 1 ] || thaw
}

finish() {
  trap '' TERM INT HUP
  if [ "$frozen" = 1 ] || [ "$outcome" != ok ]; then each thaw; fi
  thawed_ns=$(date +%s%N)
  printf 'outcome=%s\nfailed=%s\nstatus=%s\nfrozen_ns=%s\nthawed_ns=%s\n' \
    "$outcome" "$failed" "$status" "$frozen_ns" "$thawed_ns" >"$folder/result.tmp"
  mv "$folder/result.tmp" "$folder/result"
}

run() {
  folder=$1
  read -r stat </proc/$$/stat
  # shellcheck disable=SC2086 # fields of proc_pid_stat(5), the 22nd is the start time
  set -- ${stat##*) }
  printf '%s %s\n' $$ "${20}" >"$folder/pid.tmp" && mv "$folder/pid.tmp" "$folder/pid" || exit 1

  value "$folder/plan" count && count=$found
  value "$folder/plan" pause && pause=$found
  value "$folder/plan" timeout_ms && timeout_ms=$found
  value "$folder/plan" hard_s && hard_s=$found
  outcome=failed failed= status=1 stopped= frozen=0
  trap 'stopped=1; : >"$folder/stop"' TERM INT HUP
  trap finish EXIT
  renice -n -15 -p $$ >/dev/null 2>&1 # who waits is a process that stands still; the rest of the node can wait
  each lodge || exit 1
  frozen_ns=$(date +%s%N)
  tell_time
  echo $((now + (timeout_ms + 9) / 10)) >"$folder/deadline"
  if [ "$pause" = 1 ]; then
    frozen=1
    each freeze || exit 1
  fi
  if [ -z "$stopped" ] && each dump; then outcome=ok; fi
  if [ -n "$stopped" ] && [ "$outcome" != ok ]; then outcome=cancelled; fi
  if [ "$outcome" = failed ] && [ -e "$folder/late" ]; then outcome=timeout; fi
  exit 0
}

case ${1-} in
  run) run "$2" ;;
  cut) if [ "${CRTOOLS_SCRIPT_ACTION-}" = post-dump ]; then cut "$2"; fi ;;
  *) echo "usage: snap-dump run FOLDER | snap-dump cut FOLDER" >&2; exit 2 ;;
esac
