#!/bin/bash
# Makes a root filesystem of the system's static busybox in the directory given.
set -euo pipefail
dir=$1
busybox=$(PATH=$PATH:/usr/sbin:/sbin command -v busybox)
rm -rf "$dir.new"
mkdir -p "$dir.new"/{bin,dev,etc,proc,root,run,sys,tmp,usr,var}
cp "$busybox" "$dir.new/bin/busybox"
# An applet's link is relative, so that it holds wherever the directory is.
for applet in $("$busybox" --list); do
	[ -e "$dir.new/bin/$applet" ] || ln -s busybox "$dir.new/bin/$applet"
done
echo 'root:x:0:0:root:/root:/bin/sh' >"$dir.new/etc/passwd"
rm -rf "$dir"
mv "$dir.new" "$dir"
