#!/bin/bash
# Gets what the tests use and Go does not bring: mail programs, and the mail servers that this package starts.
# Safe to run again; silent and quick when nothing is missing. Needs root on Debian, and says what is skipped elsewhere.
#
# Dovecot is installed. Cyrus and Courier exclude it and each other, so they are only unpacked, each into its folder of
# MAILSTOW_TEST_SERVERS (~/.cache/mailstow-test-servers).
set -euo pipefail
servers=${MAILSTOW_TEST_SERVERS:-$HOME/.cache/mailstow-test-servers}

# What each package is there for: a program of it.
programs='dovecot-imapd=/usr/lib/dovecot/imap dovecot-pop3d=/usr/lib/dovecot/pop3 openssl=openssl mutt=mutt notmuch=notmuch
maildir-utils=mu strace=strace isync=mbsync offlineimap3=offlineimap getmail6=getmail zsh=zsh fish=fish'

packages_of() {
  case $1 in
  cyrus) echo cyrus-imapd cyrus-pop3d sasl2-bin ;;
  courier) echo courier-imap courier-pop courier-authlib-userdb ;;
  esac
}

missing_packages() {
  local p
  for p in $programs; do command -v "${p#*=}" >/dev/null || echo "${p%%=*}"; done
}

missing_servers() {
  local s
  for s in cyrus courier; do [[ -d $servers/$s ]] || echo "$s"; done
}

# skip REASON SERVER...: says which tests will not run.
skip() {
  local reason=$1 p
  shift
  for p in $(missing_packages); do echo "mailtest: $p is missing ($reason): the tests that use it will be skipped"; done
  for p in "$@"; do echo "mailtest: $p cannot be started ($reason): the tests against it will be skipped"; done
}

apt() { apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o APT::Sandbox::User=root "$@"; }

policy= # what cleanup deletes
cleanup() { rm -rf "$servers/new" $policy; }

# update waits for an update that runs elsewhere: apt itself does not wait for that lock.
update() {
  local tries
  for tries in 1 2 3 4 5; do
    apt update && return
    sleep 10
  done
  return 1
}

# install PACKAGE...: without starting the servers among them, now or at the next boot.
install() {
  if [[ ! -e /usr/sbin/policy-rc.d ]]; then
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
  fi
  apt install "$@" >/dev/null
  case "$*" in *dovecot*) systemctl --quiet disable dovecot.service dovecot.socket 2>/dev/null || true ;; esac
}

# unpack SERVER: its packages, and what they need that is not installed, into its folder, which appears whole or not at all.
unpack() {
  local new=$servers/new deb d
  mkdir -p "$new/debs/partial" "$new/root"
  # shellcheck disable=SC2046 # a list
  apt install --download-only -o Dir::Cache::Archives="$new/debs" $(packages_of "$1") >/dev/null
  for deb in "$new"/debs/*.deb; do
    case ${deb##*/} in exim4* | *-dev_*) continue ;; esac # a mail-transport-agent is asked for, but not used
    dpkg -x "$deb" "$new/root"
  done
  # Only /usr and /etc will be laid over those of the system, where /lib and the others are links into /usr.
  for d in bin sbin lib lib64; do
    if [[ -d $new/root/$d && ! -L $new/root/$d ]]; then
      mkdir -p "$new/root/usr/$d"
      cp -a "$new/root/$d/." "$new/root/usr/$d/"
      rm -r "${new:?}/root/$d"
    fi
  done
  chmod 755 "$new/root"
  mv -T "$new/root" "$servers/$1"
  rm -r "$new"
}

main() {
  [[ $(id -u) = 0 ]] || { skip 'not root' dovecot cyrus courier; return; }
  # shellcheck disable=SC2046 # a list
  [[ -e /etc/debian_version ]] || { skip 'not Debian' $(missing_servers); return; }
  [[ -n $(missing_packages; missing_servers) ]] || return 0

  export DEBIAN_FRONTEND=noninteractive
  mkdir -p "$servers"
  exec 9>"$servers/lock"
  flock 9 # one run at a time; what is missing is asked again below
  trap cleanup EXIT
  update
  local packages s
  packages=$(missing_packages)
  # shellcheck disable=SC2086 # a list
  [[ -z $packages ]] || install $packages
  for s in $(missing_servers); do unpack "$s"; done
}
main "$@"
