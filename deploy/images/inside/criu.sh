#!/bin/sh
# Runs inside an image's build: criu.sh FOLDER puts CRIU with its loader and every library it needs into FOLDER, in
# one piece that works wherever it is copied to, whatever C library the node has.
set -eu

out=$1
program=$(command -v criu)
mkdir -p "$out/bin" "$out/lib" "$out/libexec"
cp "$program" "$out/libexec/criu"
ldd "$program" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*ld-linux[^ ]*\) .*/\1/p' |
    while read -r library; do cp -L "$library" "$out/lib/"; done

cat > "$out/bin/criu" << 'WRAPPER'
#!/bin/sh
# CRIU with its own loader and libraries, wherever this folder was copied to
here=$(dirname "$(dirname "$(readlink -f "$0")")")
for loader in "$here"/lib/ld-linux*; do :; done
exec "$loader" --library-path "$here/lib" "$here/libexec/criu" "$@"
WRAPPER
chmod 0755 "$out/bin/criu"
"$out/bin/criu" --version | sed -n 's/^Version: //p' > "$out/VERSION"
[ -s "$out/VERSION" ]
