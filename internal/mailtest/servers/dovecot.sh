# Dovecot as it is installed, without its /etc/dovecot. SETTINGS come last.
for u in $users; do
  echo "$u:{PLAIN}$u-secret::::"
  install -d -o 8 -g 8 "$DIR/home/$u"
done >"$DIR/users"

cat >"$DIR/dovecot.conf" <<C
protocols = imap pop3
listen = 127.0.0.1
base_dir = $DIR/base
state_dir = $DIR/state
log_path = /dev/stderr
ssl = yes
ssl_cert = <$DIR/tls/cert.pem
ssl_key = <$DIR/tls/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0
passdb {
  driver = passwd-file
  args = $DIR/users
  mechanisms = plain login apop scram-sha-256
}
# The next stop after a wrong password, to fail at once.
passdb {
  driver = static
  args = nopassword=y nodelay=y
  result_success = return-fail
  mechanisms = plain login apop scram-sha-256
}
userdb {
  driver = static
  args = uid=8 gid=8 home=$DIR/home/%u
}
first_valid_uid = 8
mail_location = maildir:~/Maildir
mail_fsync = never
mail_max_userip_connections = 200
namespace inbox {
  inbox = yes
  separator = .
  mailbox Sent {
    special_use = \Sent
  }
  mailbox Trash {
    special_use = \Trash
  }
  mailbox Drafts {
    special_use = \Drafts
  }
}
service imap-login {
  service_count = 0
  inet_listener imap {
    port = $IMAP
  }
  inet_listener imaps {
    port = $IMAPS
    ssl = yes
  }
}
service pop3-login {
  service_count = 0
  inet_listener pop3 {
    port = $POP3
  }
  inet_listener pop3s {
    port = $POP3S
    ssl = yes
  }
}
# Without this, wrong passwords slow down everybody at 127.0.0.1.
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
$SETTINGS
C

dovecot -F -c "$DIR/dovecot.conf" &
wait -n
