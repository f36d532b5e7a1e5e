# Comes before the script of each server, and runs as the first process of a private mount and pid namespace: when it
# ends, everything in it does. Has the certificate in the folder tls, DIR (where all files of the server go; below /run,
# so in memory and out of sight of others), ROOT (unpacked packages, if any), and the ports IMAP IMAPS POP3 POP3S.
set -eu
umask 022
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir "$DIR"
cp -r tls "$DIR/tls"
cd "$DIR"

users='alice bob carol'

# unpacked makes the packages in ROOT appear in /usr and /etc. What is written to /etc stays in the namespace.
unpacked() {
  local etc=/etc
  [[ ! -d $ROOT/etc ]] || etc=$ROOT/etc:/etc
  mkdir "$DIR/etc" "$DIR/work"
  mount -t overlay -o "lowerdir=$ROOT/usr:/usr" overlay /usr
  mount -t overlay -o "lowerdir=$etc,upperdir=$DIR/etc,workdir=$DIR/work" overlay /etc
}

# account NAME: a user and a group to run as, that own the mail.
account() {
  sed -i "/^$1:/d" /etc/passwd /etc/group
  echo "$1:x:2599:2599::/nonexistent:/bin/false" >>/etc/passwd
  echo "$1:x:2599:" >>/etc/group
}
