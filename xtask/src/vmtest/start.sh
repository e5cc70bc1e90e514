# The guest's files are there. Mounts what a machine has, runs `script.sh`, and leaves its streams and exit code in ports,
# which are files of the host. Set before: job, modules (the host's path of /lib/modules/RELEASE).
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mkdir -p /dev/shm /dev/pts /lib/modules
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /lib/modules
# Not on the layer: machines of tests have overlays of their own, whose upper folder cannot be on another. They hide /run.
export TMPDIR=/dev/shm
ln -s "$modules" "/lib/modules/$(uname -r)"
echo "$job/modprobe" > /proc/sys/kernel/modprobe
hostname guest
ip link set lo up
# Their names come a moment after the ports.
attempts=600
until [ -n "$stdout" ] && [ -n "$stderr" ] && [ -n "$code" ]; do
    [ $((attempts -= 1)) -gt 0 ] || { echo "the ports have no names" > /dev/console; break; }
    for port in /sys/class/virtio-ports/*; do
        case $(cat "$port/name") in
            stdout) stdout=/dev/${port##*/} ;;
            stderr) stderr=/dev/${port##*/} ;;
            code) code=/dev/${port##*/} ;;
        esac
    done
    sleep 0.1
done
setsid bash "$job/script.sh" > "$stdout" 2> "$stderr" < /dev/null
echo $? > "$code"
sync
echo o > /proc/sysrq-trigger
sleep 60
