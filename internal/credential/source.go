package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// commandTimeout bounds a password command: a person may have to unlock
// something first.
const commandTimeout = 60 * time.Second

// maxSecret bounds a secret, in octets.
const maxSecret = 64 << 10

// Shell returns the command that runs text in a shell.
func Shell(text string) []string { return []string{"sh", "-c", text} }

// FromCommand runs a program with arguments and returns the first line of its
// output. Errors call it what.
func FromCommand(ctx context.Context, what string, argv []string) (Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	var complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stderr = &complaint
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if ctx.Err() == context.DeadlineExceeded {
		return Secret{}, fmt.Errorf("the %s took longer than %v", what, commandTimeout)
	}
	if err != nil {
		said, _, _ := strings.Cut(strings.TrimSpace(complaint.String()), "\n")
		return Secret{}, fmt.Errorf("the %s failed (%w): %s", what, err, said)
	}
	return firstLine(out, "the "+what)
}

// FromFile returns the first line of a file that only its owner can read.
func FromFile(path string) (Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return Secret{}, err
	}
	defer f.Close()
	if err := Private(f); err != nil {
		return Secret{}, err
	}
	return FromReader(f, path)
}

// Granted returns the file in which systemd gives the service the password of an
// account (LoadCredential=mailstow.ACCOUNT.password), "" if there is none.
func Granted(getenv func(string) string, account string) string {
	dir := getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return ""
	}
	path := filepath.Join(dir, "mailstow."+account+".password")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// FromGranted returns the first line of a file that systemd has made, which sees
// to who can read it.
func FromGranted(path string) (Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return Secret{}, err
	}
	defer f.Close()
	return FromReader(f, path)
}

// FromReader returns the first line of what r gives; name says what r is.
func FromReader(r io.Reader, name string) (Secret, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSecret))
	if err != nil {
		return Secret{}, err
	}
	return firstLine(b, name)
}

func firstLine(b []byte, name string) (Secret, error) {
	line, _, _ := strings.Cut(string(b), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" {
		return Secret{}, fmt.Errorf("%s gives no password", name)
	}
	return NewSecret(line), nil
}

// ErrNotPrivate is returned for a file with a secret that others can read.
var ErrNotPrivate = errors.New("others can read it, and it holds a password")

// Private returns [ErrNotPrivate] if others than the owner can read f.
func Private(f interface{ Stat() (fs.FileInfo, error) }) error {
	fi, err := f.Stat()
	if err == nil && fi.Mode().IsRegular() && fi.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("%s: %w", fi.Name(), ErrNotPrivate)
	}
	return err
}
