package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"mailstow/backup"
	"mailstow/internal/config"
	"mailstow/internal/credential"
	"mailstow/maildir"
)

// Exit statuses. Scripts rely on them: new ones are added, none is renumbered.
const (
	exitOK          = 0
	exitFailure     = 1
	exitIncomplete  = 3  // finished, but something is missing
	exitUsage       = 64 // wrong use of the command line
	exitDamaged     = 65 // the archive is damaged
	exitUnavailable = 69 // the server could not be reached, or was lost before anything arrived
	exitDisk        = 74 // the local disk is full or cannot be written
	exitLater       = 75 // stopped on purpose: another run is active
	exitLogin       = 77 // login refused
	exitConfig      = 78 // configuration, or an archive that is not what it was
)

// Interrupted is the cause of a context that a signal ended.
type Interrupted struct{ Signal syscall.Signal }

func (i Interrupted) Error() string {
	name := map[syscall.Signal]string{syscall.SIGINT: "SIGINT", syscall.SIGTERM: "SIGTERM", syscall.SIGHUP: "SIGHUP"}[i.Signal]
	return "interrupted by " + first(name, i.Signal.String())
}

// saidError is an error that the user has been told of.
type saidError struct{ status int }

func (e *saidError) Error() string { return fmt.Sprintf("exit status %d", e.status) }

// problem is an error as the user reads it.
type problem struct {
	account string // "" where it concerns no account
	what    string
	server  string // what the server said
	why, do string
	details []string // further lines, with their own labels
	status  int
	code    string // for JSON
}

// passes reports whether the next run is going to be without the problem, so that
// nobody has to hear of it at night.
func (p problem) passes() bool { return p.status == exitLater }

// stuck is the code of a run that hangs, so that no other one can work.
const stuck = "stuck"

// stuckAfter is how long a run may write nothing while another one waits for it.
const stuckAfter = time.Hour

// print writes the problem in at most a few lines, the first of which makes
// sense alone.
func (p problem) print(w io.Writer) {
	head := "mailstow: "
	if p.account != "" {
		head += show(p.account) + ": "
	}
	fmt.Fprintln(w, head+show(p.what))
	for _, d := range p.details {
		fmt.Fprintln(w, "  "+show(d))
	}
	for _, l := range []struct{ label, text string }{{"server:", p.server}, {"why:", p.why}, {"do:", p.do}} {
		if l.text != "" {
			fmt.Fprintf(w, "  %-8s%s\n", l.label, show(l.text))
		}
	}
}

// explain makes a problem of an error.
func explain(ctx context.Context, account string, err error) problem {
	p := problem{account: account, what: err.Error(), status: exitFailure, code: "failed"}
	var ready *problemError
	var interrupted Interrupted
	var refused *credential.RefusedError
	var disk *backup.ArchiveError
	var cfg *config.Error
	var cert *tls.CertificateVerificationError
	var locked *maildir.LockedError
	switch {
	case errors.As(context.Cause(ctx), &interrupted):
		p.what, p.status, p.code = interrupted.Error()+"; run it again to go on", 128+int(interrupted.Signal), "interrupted"
	case errors.As(err, &ready):
		p = ready.problem
		p.account = first(account, p.account)
	case errors.As(err, &refused):
		p.what = fmt.Sprintf("login refused by %s for user %q", refused.Server, refused.User)
		p.server, p.status, p.code = refused.Answer, exitLogin, "auth_failed"
		p.do = "check the user name and the password"
	case errors.As(err, &cfg):
		p.do, p.status, p.code = cfg.Hint, exitConfig, "config"
	case errors.Is(err, credential.ErrNotPrivate):
		p.do, p.status, p.code = "chmod 600 that file", exitConfig, "config"
	case errors.As(err, &locked):
		p.do, p.status, p.code = "nothing: it goes on when the other run is done", exitLater, "locked"
		if locked.Idle > stuckAfter {
			p.what += ", and has written nothing for " + ago(locked.Idle)
			p.do, p.status, p.code = "see what that run waits for, and end it if it hangs; nothing is lost", exitFailure, stuck
		}
	case errors.Is(err, maildir.ErrNewer):
		p.do, p.status, p.code = "use the newer program; nothing was changed", exitConfig, "config"
	case errors.Is(err, maildir.ErrNone):
		p.do, p.status, p.code = "check the path; mailstow backup makes an archive", exitConfig, "config"
	case errors.As(err, &cert):
		p.status, p.code = exitUnavailable, "tls_untrusted"
		p.untrusted(cert.Err)
	case errors.As(err, &disk):
		explainDisk(&p, err)
	case errors.As(err, new(*backup.RoomError)):
		p.status, p.code, p.do = exitDisk, diskFull, makeRoomForIt
	case errors.As(err, new(*fs.PathError)):
		p.status, p.code = exitDisk, "not_readable"
	case errors.Is(err, backup.ErrIncomplete):
		p.status, p.code = exitIncomplete, "incomplete"
	case errors.As(err, new(*serverError)):
		p.status, p.code = exitUnavailable, "not_reachable"
		p.unreachable(err)
	}
	return p
}

// untrusted says what is wrong with a certificate.
func (p *problem) untrusted(err error) {
	var invalid x509.CertificateInvalidError
	p.what, p.why, p.do = "the server's certificate cannot be trusted", strings.TrimPrefix(err.Error(), "x509: "), "trust its CA: --tls-ca FILE, or tls_ca in the config file"
	switch {
	case errors.As(err, new(x509.HostnameError)):
		p.what, p.do = "the server's certificate is for another name", "use the name in the certificate"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && time.Now().After(invalid.Cert.NotAfter):
		p.what, p.why, p.do = "the server's certificate has expired, on "+day(invalid.Cert.NotAfter), "", "tell whoever runs the server; see that this machine's clock is right"
	case errors.As(err, new(x509.UnknownAuthorityError)):
		p.why, p.do = "nobody whom this machine trusts has signed it", "if the server is your own: --tls-ca FILE, or tls_fingerprint in the config file; if not, somebody may stand between"
	}
}

// unreachable says why a server could not be connected to, if that is what an error
// is about.
func (p *problem) unreachable(err error) {
	var name *net.DNSError
	var dial *net.OpError
	switch {
	case errors.As(err, &name) && name.IsNotFound:
		p.what, p.do = "there is no server "+name.Name, "check its name"
	case errors.As(err, &name):
		p.what, p.do = fmt.Sprintf("%s cannot be looked up: %s", name.Name, name.Err), "see whether the network is there, and run it again"
	case errors.As(err, &dial) && dial.Op == "dial" && dial.Addr != nil && dial.Timeout():
		p.what, p.do = dial.Addr.String()+" does not answer", "see whether the network is there, and run it again"
	case errors.As(err, &dial) && dial.Op == "dial" && dial.Addr != nil:
		why := dial.Err
		var call *os.SyscallError
		if errors.As(why, &call) {
			why = call.Err
		}
		p.what, p.do = fmt.Sprintf("%s cannot be reached: %v", dial.Addr, why), "check name and port, or run it again later"
	}
}

// serverError is an error of the connection to a server.
type serverError struct{ err error }

func (e *serverError) Error() string { return e.err.Error() }
func (e *serverError) Unwrap() error { return e.err }

// problemError carries a problem that is ready to be printed.
type problemError struct {
	problem
	cause error // nil where the problem itself is the error
}

func (e *problemError) Error() string { return e.what }
func (e *problemError) Unwrap() error { return e.cause }

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || strings.Contains(err.Error(), "SQLITE_FULL") || strings.Contains(err.Error(), "disk is full")
}

func explainDisk(p *problem, err error) {
	p.status, p.code = exitDisk, "not_writable"
	p.what = "the archive cannot be written: " + err.Error()
	p.do = "see that the disk is there and can be written; nothing is broken, the next run goes on"
	if isFull(err) {
		p.what, p.code, p.do = err.Error(), diskFull, makeRoomForIt
	}
}

// diskFull is the code of a disk that has no more room.
const diskFull = "disk_full"

const makeRoomForIt = `make room or move the archive (mv the folder, then archive = "..."); nothing is broken, the next run goes on`

// noRoom says how much room an archive has and, if that is known, needs.
func (p *problem) noRoom(dir string, err error) {
	var room *backup.RoomError
	if errors.As(err, &room) {
		p.what = fmt.Sprintf("no room in %s: %s free, %s needed", dir, octets(room.Free), octets(room.Need))
		return
	}
	p.what, p.why = fmt.Sprintf("no room in %s: %s free", dir, octets(free(dir))), p.what
}

// free returns how many octets are free on the disk of a directory that may not
// be there yet, 0 if that cannot be told.
func free(dir string) int64 {
	var fs syscall.Statfs_t
	if dir = existing(dir); dir == "" || syscall.Statfs(dir, &fs) != nil {
		return 0
	}
	return int64(fs.Bavail) * int64(fs.Bsize)
}
