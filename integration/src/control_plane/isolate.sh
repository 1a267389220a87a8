# isolate.sh FOLDER COMMAND...: runs a command in a root of its own: everything as it is, but with the entries of FOLDER on top, each
# in the place of the same entry of `/` (`certs` becomes /certs). Called by `unshare --mount --map-root-user`, so it needs no root and
# nobody else sees it. For programs whose paths cannot be configured because they are an image's.
set -eu
folder=$1
shift
root=$folder.root
mkdir -p "$root"
for entry in /*; do
    name=${entry#/}
    if [ -e "$folder/$name" ]; then continue; fi
    if [ -L "$entry" ]; then
        cp -P "$entry" "$root/$name"
    elif [ -d "$entry" ]; then
        mkdir -p "$root/$name"
        mount --rbind "$entry" "$root/$name"
    fi
done
for entry in "$folder"/*; do
    name=${entry##*/}
    mkdir -p "$root/$name"
    mount --rbind "$entry" "$root/$name"
done
if [ -e "$folder.hosts" ]; then mount --bind "$folder.hosts" "$root/etc/hosts"; fi
exec chroot "$root" setpriv --pdeathsig KILL -- "$@"
