package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"mailstow/internal/credential"
)

// errNobody is returned where there is nobody to ask.
var errNobody = errors.New("there is nobody to ask")

// person is somebody at a terminal. Whoever asks holds asking, and asks until the
// program is to end: what still reads the terminal would take the next answer.
type person struct {
	in    *os.File
	out   io.Writer
	lines *bufio.Reader // of in
	own   bool          // in was opened for this, and nothing reads it any more
}

// person returns the person who may be asked. The caller closes it.
func (p *program) person(c *cli.Context) (*person, error) {
	if !p.mayAsk(c) {
		return nil, errNobody
	}
	if tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		return &person{in: tty, out: tty, lines: bufio.NewReader(tty), own: true}, nil
	}
	in := p.Stdin.(*os.File) // a terminal that is not this session's, as after su -c
	return &person{in: in, out: p.Stderr, lines: bufio.NewReader(in)}, nil
}

// mayAsk reports whether there is a person who may be asked.
func (p *program) mayAsk(c *cli.Context) bool {
	return !c.Bool("no-input") && !c.Bool("json") && p.terminal(p.Stdin)
}

// askSecret asks the person at the terminal for something that is not shown.
func (p *program) askSecret(c *cli.Context, question string, nobody error) (credential.Secret, error) {
	p.asking.Lock()
	defer p.asking.Unlock()
	tty, err := p.person(c)
	if err != nil {
		return credential.Secret{}, nobody
	}
	defer tty.Close()
	secret, err := tty.secret(c.Context, question)
	if c.Context.Err() == nil && secret.IsEmpty() {
		err = configFailed("nothing was typed", "")
	}
	return secret, err
}

func (w *person) Close() error {
	if !w.own {
		return nil
	}
	return w.in.Close()
}

func (w *person) say(format string, args ...any) { fmt.Fprintf(w.out, format+"\n", args...) }

// line asks for a line, and returns it without the spaces around it.
func (w *person) line(ctx context.Context, question string) (string, error) {
	fmt.Fprint(w.out, question)
	text, err := answer(ctx, func() (string, error) { return w.lines.ReadString('\n') })
	if ctx.Err() != nil {
		w.own = false
		w.say("")
	}
	return strings.TrimSpace(text), err
}

// secret asks for something that is not shown as it is typed, and returns it
// without the spaces around it, which are easily pasted.
func (w *person) secret(ctx context.Context, question string) (credential.Secret, error) {
	fmt.Fprint(w.out, question)
	fd := int(w.in.Fd())
	shown, err := term.GetState(fd)
	if err != nil {
		return credential.Secret{}, err
	}
	text, err := answer(ctx, func() (string, error) {
		b, err := term.ReadPassword(fd)
		return string(b), err
	})
	if ctx.Err() != nil {
		w.own = false
		term.Restore(fd, shown)
	}
	w.say("")
	return credential.NewSecret(strings.TrimSpace(text)), err
}

// answer waits for what read returns, or for the end of ctx: then read is left
// behind, as nothing ends the reading of a terminal.
func answer(ctx context.Context, read func() (string, error)) (string, error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	type result struct {
		text string
		err  error
	}
	got := make(chan result, 1)
	go func() {
		text, err := read()
		got <- result{text, err}
	}()
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case r := <-got:
		return r.text, r.err
	}
}
