package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"mailstow/internal/credential"
	"mailstow/internal/lock"
)

// Tokens gives access tokens for an account, and keeps the leave that its owner
// has given. It may be used by several goroutines, and programs, at the same
// time: whoever renews a token ends the one before.
type Tokens struct {
	App    Application
	Secret func(context.Context) (credential.Secret, error) // of the application, where it has one to be asked for; nil for App.Secret
	Server string                                           // of the mail, to which the tokens go
	Name   string                                           // under which the grant is kept
	Store  credential.Store
	Locks  string // a directory for lock files
}

// ErrNeverGiven is returned if nobody has signed in yet.
var ErrNeverGiven = errors.New("nobody has signed in yet")

// ErrOtherApplication is returned if somebody has signed in for another
// application, or with another sign-in server.
var ErrOtherApplication = errors.New("the sign-in was for another application")

// Token returns an access token that is good for some minutes at least. used is
// one that the server does not accept any more, whatever it says of itself; empty
// for none.
func (t *Tokens) Token(ctx context.Context, used credential.Secret) (credential.Secret, error) {
	unlock, err := t.lock(ctx)
	if err != nil {
		return credential.Secret{}, err
	}
	defer unlock()
	g, err := t.Grant()
	if err != nil {
		return credential.Secret{}, err
	}
	if g.Good(time.Now()) && g.Access != used.Reveal() {
		return credential.NewSecret(g.Access), nil
	}
	app, err := t.Application(ctx)
	if err != nil {
		return credential.Secret{}, err
	}
	if err := t.replace(g); err != nil { // where the old one cannot be written the new one could not either, and would be lost
		return credential.Secret{}, err
	}
	// From here on the old one may not be good any more: whatever ends the run, the
	// answer is waited for, and kept.
	renewed, err := app.Renew(context.WithoutCancel(ctx), g)
	if ended := (*EndedError)(nil); errors.As(err, &ended) {
		g.Ended = ended.Code
		t.replace(g) // else it is found out again
	}
	if err != nil {
		return credential.Secret{}, err
	}
	return credential.NewSecret(renewed.Access), t.replace(renewed)
}

// Application returns the application with its secret.
func (t *Tokens) Application(ctx context.Context) (app Application, err error) {
	app = t.App
	if t.Secret != nil {
		app.Secret, err = t.Secret(ctx)
	}
	return app, err
}

// Grant returns what is kept.
func (t *Tokens) Grant() (*Grant, error) {
	secret, where, err := t.Store.Load(t.Name, t.Server)
	if errors.Is(err, credential.ErrNotKept) {
		return nil, ErrNeverGiven
	}
	if err != nil {
		return nil, &KeptError{err}
	}
	var g Grant
	if err := json.Unmarshal([]byte(secret.Reveal()), &g); err != nil || g.Refresh == "" {
		return nil, &KeptError{fmt.Errorf("what is in %s is no sign-in", where)}
	}
	if g.ClientID != t.App.ID || g.Token != t.App.Token {
		return nil, ErrOtherApplication
	}
	return &g, nil
}

// Keep keeps a grant that a person has just given, for servers, at a place of the
// store. It returns where it is.
func (t *Tokens) Keep(ctx context.Context, g *Grant, servers []string, place string) (where string, err error) {
	unlock, err := t.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	text, err := g.secret()
	if err != nil {
		return "", err
	}
	return t.Store.Save(t.Name, text, servers, place)
}

// Forget forgets the grant. It returns [credential.ErrNotKept] if there was none.
func (t *Tokens) Forget(ctx context.Context) error {
	unlock, err := t.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return t.Store.Remove(t.Name)
}

// secret returns the grant as it is kept.
func (g *Grant) secret() (credential.Secret, error) {
	b, err := json.Marshal(g)
	return credential.NewSecret(string(b)), err
}

// replace keeps a grant where the one before was. The refresh token in it is the
// only one that is good.
func (t *Tokens) replace(g *Grant) error {
	text, err := g.secret()
	if err != nil {
		return err
	}
	if err := t.Store.Replace(t.Name, text); err != nil {
		return &KeepError{err}
	}
	return nil
}

// KeptError says that a sign-in which is kept cannot be used.
type KeptError struct{ Err error }

func (e *KeptError) Error() string {
	return "the sign-in that is kept cannot be used: " + e.Err.Error()
}
func (e *KeptError) Unwrap() error { return e.Err }

// KeepError says that a sign-in cannot be written where it is kept.
type KeepError struct{ Err error }

func (e *KeepError) Error() string { return "the sign-in cannot be kept: " + e.Err.Error() }
func (e *KeepError) Unwrap() error { return e.Err }

// lock waits until no other program is at work on the grant.
func (t *Tokens) lock(ctx context.Context) (unlock func(), err error) {
	if t.Locks == "" {
		return func() {}, nil
	}
	if err := os.MkdirAll(t.Locks, 0o700); err != nil {
		return nil, &KeepError{err}
	}
	for {
		f, err := lock.Take(filepath.Join(t.Locks, url.PathEscape(t.Name)+".lock"))
		switch {
		case err == nil:
			return func() { lock.Release(f) }, nil
		case !errors.Is(err, lock.ErrHeld):
			return nil, &KeepError{err}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
