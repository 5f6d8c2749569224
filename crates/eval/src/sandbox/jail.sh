# Makes a root of its own in $1 with the system's libraries and Python's folder $2, read-only, then runs the rest.
# Called inside new namespaces (user, mount, pid, net, ipc, uts), in which this shell may mount and nothing else.
set -eu
root=$1 python=$2 seconds=$3
shift 3
# No namespaces inside this one: a way to capabilities less.
echo 0 > /proc/sys/user/max_user_namespaces
mount -t tmpfs -o size=16m,nosuid,nodev,mode=755 none "$root"
mkdir "$root/tmp" "$root/proc" "$root/dev" "$root/old"
for folder in /usr /lib /lib32 /lib64 /bin "$python"; do
    if [ -L "$folder" ]; then
        ln -s "$(readlink "$folder")" "$root$folder"
    elif [ -d "$folder" ] && ! [ -e "$root$folder" ]; then
        mkdir -p "$root$folder"
        mount --bind "$folder" "$root$folder"
        mount -o remount,bind,ro,nosuid,nodev "$root$folder"
    fi
done
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
for device in null zero urandom; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
cd "$root"
pivot_root . old
umount -l /old
rmdir /old
mount -o remount,ro /
mount -t tmpfs -o size=16m,nosuid,nodev,noexec none /tmp
cd /tmp
exec prlimit --cpu="$seconds" --as=1073741824 --nproc=32 --fsize=16777216 --core=0 --nofile=64 \
    setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --securebits=+noroot,+noroot_locked -- "$@"
