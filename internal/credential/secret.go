// Package credential holds passwords, and says how a login failed.
package credential

import (
	"fmt"
	"log/slog"
	"strings"
)

// Secret is a password or token. Printing it, logging it or encoding it by
// accident shows "[secret]", even from inside another struct.
type Secret struct {
	reveal func() string // a func, because fmt prints the address of a func
}

// NewSecret returns a Secret that holds s.
func NewSecret(s string) Secret { return Secret{func() string { return s }} }

// Reveal returns the secret itself. Call it where it goes on the wire.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// IsEmpty reports whether there is nothing to keep secret.
func (s Secret) IsEmpty() bool { return s.Reveal() == "" }

// UnmarshalText makes a secret of what a file says.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}

func (Secret) String() string               { return "[secret]" }
func (Secret) GoString() string             { return "[secret]" }
func (Secret) LogValue() slog.Value         { return slog.StringValue("[secret]") }
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// Hide takes secrets out of a text.
func Hide(text string, secrets ...string) string {
	for _, s := range secrets {
		if s != "" && s != `""` {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	return text
}

// RefusedError says that a server did not accept a login. Trying again with
// the same secret is of no use and may lock the account.
type RefusedError struct {
	Server string // host:port
	User   string
	Answer string // what the server said, one line as it came
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("login refused by %s for user %q: %s", e.Server, e.User, e.Answer)
}
