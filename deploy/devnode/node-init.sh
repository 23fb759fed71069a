#!/bin/sh
# First process of a node: turns the folder it is given into the root of its own namespaces, then keeps its
# services running and reaps whatever is left behind. Started by node.py in fresh mount, pid, net, uts, ipc and cgroup
# namespaces; everything mounted here disappears with them.
#
# Environment: NODE (folder: root upper work data old), LOWER (the root tree), BINDS ("source target" lines: folders of
# this machine to read inside), HOSTNAME_, ADDRESS (with prefix), GATEWAY, PEERS ("range address" lines), CGROUPS
# ("folder options" lines). Services are the programs in /etc/devnode/services; each one's log is /var/log/NAME.log.
set -eu

R=$NODE/root
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$NODE/upper,workdir=$NODE/work" "$R"
mkdir -p "$R/.old" "$R/opt/snap/bin"
mount -t proc proc "$R/proc"
mount -t sysfs sysfs "$R/sys"
mount -t tmpfs -o mode=755 tmpfs "$R/run"
for d in containerd containers snap kubelet; do # on the disk itself: overlayfs and big files want no overlay below them
    mkdir -p "$NODE/data/$d" "$R/var/lib/$d"
    mount --bind "$NODE/data/$d" "$R/var/lib/$d"
done
mkdir -p "$NODE/data/pods" "$R/var/log/pods"
mount --bind "$NODE/data/pods" "$R/var/log/pods"
echo "$BINDS" | while read -r source target; do
    mkdir -p "$R/$target"
    mount --bind "$source" "$R/$target"
    mount -o remount,bind,ro "$R/$target"
done

if [ "$CGROUPS" = "- v2" ]; then
    mount -t cgroup2 cgroup2 "$R/sys/fs/cgroup"
    mkdir -p "$R/sys/fs/cgroup/init"
    echo 0 > "$R/sys/fs/cgroup/init/cgroup.procs" # a cgroup that hands controllers on may hold no process
    for c in $(cat "$R/sys/fs/cgroup/cgroup.controllers"); do
        echo "+$c" > "$R/sys/fs/cgroup/cgroup.subtree_control" || :
    done
else
    mount -t tmpfs -o mode=755 tmpfs "$R/sys/fs/cgroup"
    echo "$CGROUPS" | while read -r folder options; do
        mkdir -p "$R/sys/fs/cgroup/$folder"
        mount -t cgroup -o "$options" cgroup "$R/sys/fs/cgroup/$folder"
    done
fi

mount -t tmpfs -o mode=755 tmpfs "$R/dev"
for d in null zero full random urandom tty kmsg fuse net/tun; do
    [ -e "/dev/$d" ] || continue
    mkdir -p "$R/dev/$(dirname "$d")"
    touch "$R/dev/$d"
    mount --bind "/dev/$d" "$R/dev/$d"
done
mkdir -p "$R/dev/pts" "$R/dev/shm" "$R/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$R/dev/pts"
mount -t tmpfs tmpfs "$R/dev/shm"
ln -s pts/ptmx "$R/dev/ptmx"
for link in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
    ln -s "${link#*:}" "$R/dev/${link%%:*}"
done

cd "$R"
pivot_root . .old # a chroot is not enough: CRIU wants a real root mount
cd /
umount -l /.old
rmdir /.old
mount --make-rshared /

hostname "$HOSTNAME_"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
ulimit -n 20000 # what containers may have at most; CRIU can't raise it on machines without CAP_SYS_RESOURCE
ip link set lo up
tries=0
until ip link show eth0 > /dev/null 2>&1; do # the starter plugs the cable in
    tries=$((tries + 1))
    [ "$tries" -lt 200 ] || { echo "no cable came" >&2; exit 1; }
    sleep 0.05
done
ip addr add "$ADDRESS" dev eth0
ip link set eth0 up
ip route add default via "$GATEWAY"
echo "$PEERS" | while read -r range via; do ip route add "$range" via "$via"; done
echo 1 > /proc/sys/net/ipv4/ip_forward

unset NODE LOWER BINDS HOSTNAME_ ADDRESS GATEWAY PEERS CGROUPS R
for service in /etc/devnode/services/*; do
    (
        while :; do # whatever ends or is killed comes back
            "$service" < /dev/null >> "/var/log/${service##*/}.log" 2>&1 || :
            sleep 0.2
        done
    ) &
done
while :; do wait || :; sleep 1; done # waiting reaps orphans, too
