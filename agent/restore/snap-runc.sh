#!/bin/sh
# The OCI runtime of handler `snap`: in front of runc (as snap-runc) or crun (as snap-crun). A container whose pod
# names a checkpoint is restored if the agent says so; everything else, and every doubt, is the real runtime.
# stdin, stdout and stderr belong to the container: `restore` must get them as they are, and nothing may write there.
case ${0##*/} in *crun*) real=crun ;; *) real=runc ;; esac
if [ -r "$0.real" ]; then read -r real <"$0.real"; fi # where the runtime is not in the usual places
PATH=/opt/snap/bin:${PATH:-/usr/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
run=/run/snap

# the subcommand, how many global options stand before it, the id (always last)
sub='' id='' globals=0 option='' root=''
for arg; do
  if [ -n "$sub" ]; then id=$arg; continue; fi
  if [ -n "$option" ]; then
    if [ "$option" = --root ]; then root=$arg; fi
    option=''
  else
    case $arg in
      --root=*) root=${arg#*=} ;;
      --root | --log | --log-format | --rootless | --criu | --cgroup-manager) option=$arg ;;
      -*) ;;
      *) sub=$arg; continue ;;
    esac
  fi
  globals=$((globals + 1))
done
case $sub in create | start | state | delete) ;; *) exec "$real" "$@" ;; esac
case $id in '' | .* | *[!A-Za-z0-9_.-]*) exec "$real" "$@" ;; esac
state=$run/state/$id
request=$run/requests/$id

globally() { # WORD... -- ARGV...: the real runtime with the global options of ARGV, then the words
  words=0 i=0
  for arg; do [ "$arg" = -- ] && break; words=$((words + 1)); done
  n=$#
  while [ $i -lt $n ]; do # what is kept goes to the end: the words, then the global options
    if [ $i -ne $words ] && [ $i -le $((words + globals)) ]; then set -- "$@" "$1"; fi
    shift
    i=$((i + 1))
  done
  while [ $words -gt 0 ]; do set -- "$@" "$1"; shift; words=$((words - 1)); done
  "$real" "$@"
}

tell() { # VERB: whole or not at all; with the agent dead it is read when the next one starts
  printf 'verb=%s\nbundle=%s\nid=%s\nruntime=%s\n' "$1" "$bundle" "$id" "$real" >"$request.tmp" &&
    mv -f "$request.tmp" "$request.ask"
} 2>/dev/null

ask() { # sets action, images, work, uts, lazy, fill; no agent, no answer in time or a strange one: cold
  action=cold images='' work='' uts='' lazy='' fill=''
  flock -s -n "$run/agent.lock" true >/dev/null 2>&1
  [ $? -eq 1 ] || return 0 # nobody holds the lock
  rm -f "$request.answer"
  mkfifo -m 600 "$request.answer" 2>/dev/null || return 0
  tell ask || return 0
  answer=$(timeout 20 cat "$request.answer" </dev/null 2>/dev/null)
  rm -f "$request.ask" "$request.taken" "$request.answer" # an answer that comes later finds nobody
  said=''
  while IFS= read -r line; do
    case $line in */../* | */..) return 0 ;; esac
    case $line in
      images=/*) images=${line#*=} ;;
      work=/*) work=${line#*=} ;;
      uts=/proc/*/ns/uts | uts=/var/run/*/* | uts=/run/*/*) uts=${line#*=} ;;
      lazy=1) lazy=--lazy-pages ;;
      fill=[1-9] | fill=[1-9][0-9] | fill=[1-9][0-9][0-9] | fill=[1-9][0-9][0-9][0-9]) fill=${line#*=} ;;
      action=restore) said=restore ;; # the agent's last line: an answer cut short is none
    esac
  done <<END
$answer
END
  if [ -f "$images/inventory.img" ] && [ -d "$work" ]; then action=${said:-cold}; fi
}

undo() { # take back what the agent prepared, by the list that it wrote before it began
  [ -r "$state.undo" ] || return 0
  while IFS= read -r line; do
    path=${line#*=}
    case $path in */../* | */..) continue ;; esac
    case $line in
      remove=/*) rm -rf -- "$path" ;;
      from=/*) from=$path ;;
      to=/*) if [ -e "$from" ] || [ -L "$from" ]; then rm -rf -- "$path"; mv -fT -- "$from" "$path"; fi ;;
      mode=[0-7]*) mode=$path ;;
      on=/*) chmod "$mode" "$path" ;;
      refresh=/*) # the overlay must forget the names it has seen: mount(2) does that, libmount's newer way not
        LIBMOUNT_FORCE_MOUNT2=always mount -o remount "$path" || echo 2 >/proc/sys/vm/drop_caches ;;
    esac
  done <"$state.undo"
  rm -f "$state.undo"
} >/dev/null 2>&1

lazily() { # before a lazy restore: from here on its supervisor (snap-lazy) may kill the container
  [ -n "$lazy" ] || return 0
  printf 'runtime=%s\nroot=%s\n' "$real" "$root" >"$work/lazy.tmp" && mv -f "$work/lazy.tmp" "$work/lazy.on" &&
    [ ! -e "$state.lost" ]
} 2>/dev/null

kill_tree() { # PID: it and all that it has started, deepest first: what is left of CRIU would spin for ever
  for below in $(cat /proc/"$1"/task/*/children); do kill_tree "$below"; done
  kill -KILL "$1"
}

hear_filler() { # the agent brings the memory of a container that is restored and stands still. One that dies closes the
  # FIFO and leaves CRIU waiting for a process that can't end: the restore has failed, and is ended here
  [ "$(timeout "$fill" head -n 1 "$work/filled")" = complete ] && return 0
  read -r me _ </proc/self/stat
  for below in $(cat /proc/$$/task/$$/children); do [ "$below" = "$me" ] || kill_tree "$below"; done
  return 1
} >/dev/null 2>&1 </dev/null

filled() { # whether all memory is there
  [ -z "$fill" ] || wait "$filler"
}

give_up() { # the restore has failed: this id is about to belong to a container that starts cold, so wait for its supervisor
  [ -n "$lazy" ] || return 0
  : >"$work/lazy.off"
  read -r supervisor started <"$work/lazy.pid" || supervisor=''
  tries=0
  while [ -n "$supervisor" ] && [ ! -e "$work/lazy.result" ] && kill -TERM "$supervisor"; do
    tries=$((tries + 1))
    if [ $tries -gt 250 ]; then kill -KILL "$supervisor"; break; fi
    sleep 0.02
  done
  rm -f "$state.lost"
} >/dev/null 2>&1 </dev/null

rename() { # CRIU brings the old pod's name into the UTS namespace of the whole pod, early
  [ -n "$hostname" ] && nsenter --uts="$uts" sh -c 'echo "$1" >/proc/sys/kernel/hostname' sh "$hostname"
} >/dev/null 2>&1 </dev/null

find_group() { # sets group: the container's cgroup below each controller's root, by its configuration; '' where that is not told
  group=$(sed -n 's/.*"cgroupsPath": *"\([^"\\]*\)".*/\1/p' "$config" | tail -n 1)
  case $group in
    *..*) group='' ;;
    /*"$id"*) ;;
    *.slice:*:*"$id"*) # systemd's, SLICE:PREFIX:NAME; a-b.slice lies in a.slice
      left=${group%%.slice:*} name=${group#*:} slice='' group=''
      while [ -n "$left" ]; do
        slice=$slice${slice:+-}${left%%-*}
        group=$group/$slice.slice
        case $left in *-*) left=${left#*-} ;; *) left='' ;; esac
      done
      group=$group/${name%%:*}-${name#*:}.scope
      ;;
    *) group='' ;;
  esac
}

remove_cgroups() { # CRIU leaves the cgroups that it made, and crun can't start a container in such ones
  find_group
  if [ -n "$group" ]; then # below all controllers' roots, or the only one: a node may have tens of thousands of others
    for left in "/sys/fs/cgroup$group" /sys/fs/cgroup/*"$group"; do
      [ ! -d "$left" ] || find "$left" -depth -type d -exec rmdir {} \;
    done
  elif [ ${#id} -ge 32 ]; then
    find /sys/fs/cgroup -depth -type d -path "*$id*" -exec rmdir {} \;
  fi
} >/dev/null 2>&1 </dev/null

remove_remains() { # a runtime that was killed leaves the rootfs mounted below its state, and `delete` would empty it
  for left in "$root/$id/criu-root" "$bundle/criu-root"; do
    umount "$left" || umount -l "$left"
    if mountpoint -q "$left"; then return 0; fi
  done
  globally delete --force "$id" -- "$@"
  remove_cgroups
} >/dev/null 2>&1 </dev/null

create() {
  bundle='' pid_file='' console='' no_pivot='' option=''
  for arg; do
    case $option in --bundle | -b) bundle=$arg ;; --pid-file) pid_file=$arg ;; --console-socket) console=$arg ;; esac
    option=$arg
    case $arg in
      --bundle=*) bundle=${arg#*=} ;;
      --pid-file=*) pid_file=${arg#*=} ;;
      --console-socket=*) console=${arg#*=} ;;
      --no-pivot) no_pivot=$arg ;;
    esac
  done
  config=$bundle/config.json
  grep -q 'snap\.weaversoft\.io/checkpoint"' "$config" 2>/dev/null || return 0
  grep -Eq '"io\.kubernetes\.cri(\.container-type|-o\.ContainerType)": *"container"' "$config" || return 0
  ask
  if [ "$action" = restore ]; then
    hostname=''
    [ -n "$uts" ] && hostname=$(nsenter --uts="$uts" uname -n 2>/dev/null </dev/null)
    : >"$state.restored" # before the restore: whoever asks meanwhile is told "created"
    filler=''
    if [ -n "$fill" ]; then hear_filler & filler=$!; fi
    if lazily && globally restore --detach --bundle "$bundle" ${pid_file:+--pid-file "$pid_file"} \
      ${console:+--console-socket "$console"} $no_pivot $lazy ${fill:+--lazy-pages} --file-locks \
      --image-path "$images" --work-path "$work" "$id" -- "$@" && filled && [ ! -e "$state.lost" ]; then
      rename
      pid=''
      if [ -n "$pid_file" ]; then read -r pid <"$pid_file"; fi 2>/dev/null # it fails where no newline ends the file, and has read
      [ -z "$pid" ] || printf '%s\n' "$pid" >"$state.restored"
      mv -f "$config.snap" "$config" 2>/dev/null
      rm -f "$state.undo"
      exit 0
    fi
    [ -z "$filler" ] || kill "$filler" 2>/dev/null
    remove_remains "$@"
    give_up
    rename
    undo
    rm -f "$state.restored"
    tell failed
  fi
  undo
}

wait_for_hook() { # the pod's own hook runs before it counts as started; its agent answers when it has ended, or nobody does
  timeout "$patience" cat "$request.answer"
  rm -f "$request.answer"
} >/dev/null 2>&1 </dev/null

members() { # sets pids: every process of the container, the first one last; from its cgroup, for `ps` is a tenth of a restore
  pids='' group='' first=''
  { read -r first <"$state.restored" && while IFS=: read -r _ name path; do
    case $name in devices) group=/sys/fs/cgroup/devices$path ;; '') group=${group:-/sys/fs/cgroup$path} ;; esac
  done <"/proc/$first/cgroup"; } 2>/dev/null
  case $group in *"$id"*) ;; *) group='' ;; esac
  found=''
  for below in "$group"/*/; do # a program that has cgroups of its own: `ps` knows them too
    [ -n "$group" ] && [ ! -d "$below" ] || break
    { while read -r pid; do
      pids="$pid $pids"
      [ "$pid" = "$first" ] && found=1
    done <"$group/cgroup.procs"; } 2>/dev/null
  done
  [ -n "$found" ] && return 0
  pids=''
  for pid in $(globally ps --format json "$id" -- "$@" 2>/dev/null </dev/null | tr -cs 0-9 ' '); do pids="$pid $pids"; done
}

start() { # a restored container is there already, stopped: let it go, the first process last
  [ -e "$state.restored" ] || return 0
  if [ -e "$state.lost" ]; then # its memory can't come any more: it is being killed
    bundle=''
    tell failed
    return 0
  fi
  members "$@"
  [ -n "$pids" ] || return 0
  kill -CONT $pids 2>/dev/null
  rm -f "$state.restored"
  : >"$state.criu.conf" # a later dump reads this file too
  bundle='' patience=''
  if [ -e "$state.hook" ]; then
    read -r patience <"$state.hook"
    case $patience in '' | *[!0-9]*) patience='' ;; esac
    rm -f "$state.hook" "$request.answer"
    [ -z "$patience" ] || mkfifo -m 600 "$request.answer" 2>/dev/null || patience=''
  fi
  tell started
  [ -z "$patience" ] || wait_for_hook
  exit 0
}

case $sub in
  create) create "$@" ;;
  start) start "$@" ;;
  state)
    if [ -e "$state.restored" ]; then
      out=$("$real" "$@") || exit
      printf '%s\n' "$out" | sed 's/"status": *"running"/"status": "created"/'
      exit 0
    fi
    ;;
  delete)
    [ -e "$state.restored" ] || [ -e "$state.criu.conf" ] || exec "$real" "$@"
    if [ -e "$state.restored" ]; then globally delete --force "$id" -- "$@"; else "$real" "$@"; fi
    status=$?
    [ $status -eq 0 ] && rm -f "$state.restored" "$state.criu.conf" "$state.undo" "$state.json" "$state.lost" "$state.hook"
    exit $status
    ;;
esac
exec "$real" "$@"
