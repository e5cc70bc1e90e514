#!/bin/busybox sh
# Process 1 of a guest: the host's files become its own, read-only below a layer in memory, and the job in /job starts.
b=/bin/busybox
end() {
    echo "$1"
    $b poweroff -f
}
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
for module in $($b cat /modules/order); do
    $b insmod "/modules/$module" || end "cannot load $module"
done
$b mount -t virtiofs -o ro host /host || end "cannot mount the host's files"
$b mount -t tmpfs -o size=60% tmpfs /layer
$b mkdir /layer/upper /layer/work
$b mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /root || end "cannot mount the layer in memory"
for folder in proc sys dev; do
    $b mount --move "/$folder" "/root/$folder"
done
exec $b switch_root /root /bin/sh "$($b cat /job)/start.sh"
