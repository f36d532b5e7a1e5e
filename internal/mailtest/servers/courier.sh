# Courier, with passwords in its own userdb. Its folders are all below 'INBOX.'.
unpacked
account courier
export LD_LIBRARY_PATH=/usr/lib/courier-authlib
lib=/usr/lib/courier/courier
mkdir -p /run/courier/authdaemon "$DIR/home"
chown -R courier: /run/courier "$DIR/home"

for u in $users; do
  install -d -o courier -g courier "$DIR/home/$u"
  setpriv --reuid=2599 --regid=2599 --clear-groups maildirmake.courier "$DIR/home/$u/Maildir"
  hash=$(printf %s "$u-secret" | openssl dgst -sha256 -binary | base64)
  printf '%s\thome=%s|uid=2599|gid=2599|mail=%s|systempw={SHA256}%s\n' "$u" "$DIR/home/$u" "$DIR/home/$u/Maildir" "$hash"
done >/etc/courier/userdb
chmod 600 /etc/courier/userdb
makeuserdb
sed -i 's/^authmodulelist=.*/authmodulelist="authuserdb"/' /etc/courier/authdaemonrc
/usr/lib/courier/courier-authlib/authdaemond &
until [[ -S /run/courier/authdaemon/socket ]]; do sleep 0.01; done

# listen PORT imapd|pop3d tls|plain PROGRAM...: with the settings that are packaged, but for the certificate.
listen() (
  port=$1 kind=$2 tls=$3
  shift 3
  set -a +u
  prefix=/usr exec_prefix=/usr bindir=/usr/bin
  . "/etc/courier/$kind-ssl"
  . "/etc/courier/$kind"
  unset TLS_CACHEFILE TLS_DHPARAMS TLS_TRUSTCERTS
  TLS_CERTFILE=$DIR/tls/both.pem IMAP_STARTTLS=YES POP3_STARTTLS=YES
  if [[ $tls = tls ]]; then
    [[ $kind = imapd ]] && IMAP_TLS=1 || POP3_TLS=1
    set -- /usr/bin/couriertls -server -tcpd "$@"
  fi
  exec couriertcpd -address=127.0.0.1 -maxprocs=200 -maxperip=200 -nodnslookup -noidentlookup "$port" "$@"
)
listen "$IMAP" imapd plain $lib/imaplogin /usr/bin/imapd Maildir &
listen "$IMAPS" imapd tls $lib/imaplogin /usr/bin/imapd Maildir &
listen "$POP3" pop3d plain $lib/courierpop3login $lib/courierpop3d Maildir &
listen "$POP3S" pop3d tls $lib/courierpop3login $lib/courierpop3d Maildir &
wait -n
