# Cyrus, whose administrator is the user cyrus, with '.' between the names of folders and all folders below 'INBOX.'.
unpacked
account mailsrv
mkdir "$DIR"/{lib,spool,sock}

cat >"$DIR/imapd.conf" <<C
configdirectory: $DIR/lib
partition-default: $DIR/spool
defaultpartition: default
cyrus_user: mailsrv
cyrus_group: mailsrv
admins: cyrus
servername: localhost
allowplaintext: yes
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: $DIR/sasldb2
sasl_mech_list: PLAIN LOGIN
failedloginpause: 0
unixhierarchysep: no
altnamespace: no
autocreate_quota: 2000000
virtdomains: off
tls_server_cert: $DIR/tls/cert.pem
tls_server_key: $DIR/tls/key.pem
idlesocket: $DIR/sock/idle
lmtpsocket: $DIR/sock/lmtp
notifysocket: $DIR/sock/notify
imapidlepoll: 1
popminpoll: 0
C

cat >"$DIR/cyrus.conf" <<C
START {
  recover cmd="ctl_cyrusdb -C $DIR/imapd.conf -r"
}
SERVICES {
  imap  cmd="imapd -C $DIR/imapd.conf -U 30" listen="127.0.0.1:$IMAP" prefork=0 maxchild=200
  imaps cmd="imapd -C $DIR/imapd.conf -s -U 30" listen="127.0.0.1:$IMAPS" prefork=0 maxchild=200
  pop3  cmd="pop3d -C $DIR/imapd.conf -U 30" listen="127.0.0.1:$POP3" prefork=0 maxchild=200
  pop3s cmd="pop3d -C $DIR/imapd.conf -s -U 30" listen="127.0.0.1:$POP3S" prefork=0 maxchild=200
}
EVENTS {
}
C

for u in $users cyrus; do echo "$u-secret" | saslpasswd2 -p -c -f "$DIR/sasldb2" -u localhost "$u"; done
chown -R mailsrv: "$DIR"/{lib,spool,sock,sasldb2}
/usr/lib/cyrus/bin/master -D -C "$DIR/imapd.conf" -M "$DIR/cyrus.conf" -p "$DIR/sock/master.pid" &
wait -n
