package monitor

import "net"

// Systemd is where systemd listens to a service (sd_notify); "" for nowhere.
type Systemd string

// Status says in a line what the service does; systemctl status shows it.
func (s Systemd) Status(line string) { s.tell("STATUS=" + line) }

// Ready says that the service has begun its work.
func (s Systemd) Ready() { s.tell("READY=1") }

// Stopping says that it is about to end.
func (s Systemd) Stopping() { s.tell("STOPPING=1") }

// tell sends a message; that nobody hears it is no matter.
func (s Systemd) tell(text string) {
	if s == "" {
		return
	}
	name := string(s)
	if name[0] == '@' {
		name = "\x00" + name[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	conn.Write([]byte(text))
}
