#!/bin/busybox sh
# The first process of the throw-away machine. Everything is shown on the console (ttyS0). The host acts on the second
# port (ttyS1), where the kernel does not interfere: what the tests print, and between it lines that begin with `##`.
# `layout` comes from the kernel's command line.

/bin/busybox mkdir -p /bin /sbin /usr/bin /usr/sbin /proc /sys /dev /run /tmp /var/tmp /srv /root /mnt
/bin/busybox --install -s

# The first root cannot be pivoted away from, which the jailer must do: cover it with a bind of itself.
if [ -z "$covered" ]; then
    mount --bind / /mnt
    cd /mnt && mount --move . / && covered=yes exec chroot . /init
fi
unset covered

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
ln -s /proc/self/fd /dev/fd
for stream in 0:stdin 1:stdout 2:stderr; do ln -s fd/${stream%:*} /dev/${stream#*:}; done
mount -t devpts devpts /dev/pts
for place in /dev/shm /run /tmp; do mount -t tmpfs -o mode=1777 tmpfs $place; done
chmod 755 /run
exec </dev/null >/dev/ttyS0 2>&1 3>/dev/ttyS1
report() { echo "##$*" | tee /dev/ttyS1; }

export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
. /tests/environment
ip link set lo up
for module in $MODULES; do insmod /modules/$module.ko || report "fault: $module does not load"; done
mount -t ext4 /dev/vda /var/tmp && chmod 1777 /var/tmp || report "fault: /var/tmp is no disk"

# cgroup <directory> <controllers>
cgroup() { mkdir -p $1 && mount -t cgroup -o $2 cgroup $1 || report "fault: no cgroup hierarchy $2"; }
unified() { mkdir -p $1 && mount -t cgroup2 -o nsdelegate cgroup2 $1 || report "fault: no cgroup v2"; }
controllers=$(awk '!/^#/ && $4 { print $1 }' /proc/cgroups)
case $layout in
v2)
    unified /sys/fs/cgroup
    ;;
v1) # Each controller alone.
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup && cd /sys/fs/cgroup
    for name in $controllers; do cgroup $name $name; done
    ;;
hybrid) # As systemd does it: some controllers share a hierarchy, one hierarchy has only a name, v2 stands bare beside.
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup && cd /sys/fs/cgroup
    for name in $controllers; do
        case $name in
        cpu | cpuacct) shared=cpu,cpuacct ;;
        net_cls | net_prio) shared=net_cls,net_prio ;;
        *) shared= ;;
        esac
        if [ -z $shared ]; then
            cgroup $name $name
        else
            [ -d $shared ] || cgroup $shared $shared
            ln -s $shared $name
        fi
    done
    cgroup systemd none,name=systemd
    unified unified
    ;;
*) report "fault: no layout is called $layout" ;;
esac
cd /

# What a test must leave as it was: mounts, cgroups, loop devices, files in the common places, processes.
state() {
    awk '{ print "mount", $5 }' /proc/self/mountinfo
    find /sys/fs/cgroup -type d | sed 's/^/cgroup /'
    losetup -a | sed 's/^/loop /'
    find /var/tmp /tmp /srv /run -mindepth 1 -maxdepth 1 | sed 's/^/file /'
    for process in /proc/[0-9]*; do
        # Kernel threads have no executable, and what is busybox's is ours.
        program=$(readlink $process/exe) && [ "$program" != /bin/busybox ] && echo "process $program"
    done
}

set --
while read -r argument; do set -- "$@" "$argument"; done </tests/arguments
set -o pipefail
mkdir /run/tests && cd /run/tests
state >before
report "ready $(cut -d ' ' -f 1 /proc/uptime)"
for test in /tests/bin/*; do
    name=${test##*/}
    report "run $name"
    rm -f skips
    MICROVM_TEST_SKIPS=$PWD/skips unshare --mount --propagation private \
        "$test" --ignored --show-output "$@" 2>&1 3>&- | tee /dev/ttyS1
    status=$?
    # A line the test did not end would swallow ours.
    echo | tee /dev/ttyS1
    [ -e skips ] && sed 's/^/##skipped /' skips | tee /dev/ttyS1
    state >after
    diff before after | sed -n "s/^+\([^+]\)/##left $name: \1/p; s/^-\([^-]\)/##gone $name: \1/p" | tee /dev/ttyS1
    mv after before
    report "exit $status"
done
report "done"
exec 3>&-
poweroff -f
