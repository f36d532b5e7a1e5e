package imapconn

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"mailstow/internal/imapwire"
	"mailstow/internal/netconn"
	"mailstow/internal/retry"
	"mailstow/internal/sasl"
	"mailstow/mailbox"
)

// Uploader is a connection that stores messages. It is used by one goroutine
// at a time.
type Uploader struct {
	wire *imapwire.Conn
	up   *imapwire.Uploader
}

// DialUploader connects and logs in, as [Dial] does.
func DialUploader(ctx context.Context, e netconn.Endpoint, login sasl.Login) (*Uploader, error) {
	wire, err := imapwire.Dial(ctx, e, login, imapwire.Auto)
	if err != nil {
		return nil, err
	}
	return &Uploader{wire, wire.Uploader()}, nil
}

// Many reports whether [Uploader.Send] takes several messages: the server
// stores all of them or none.
func (u *Uploader) Many() bool { return u.up.Many() }

// Send sends messages for a mailbox. The answer is had by [Uploader.Answer];
// several may be due. After an error that is not a refusal the connection is
// of no more use, and what was sent without an answer may be stored or not.
func (u *Uploader) Send(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Upload) (tag string, err error) {
	for i := range msgs {
		msgs[i].Flags = sendableFlags(msgs[i].Flags)
	}
	tag, err = u.up.Send(m.Wire, msgs)
	return tag, u.explain(ctx, err)
}

// Answer returns the IDs that the messages of one Send have there, none if the
// server does not tell them. A refusal is marked as such: nothing is stored.
func (u *Uploader) Answer(ctx context.Context, tag string, messages int) ([]mailbox.ID, error) {
	validity, uids, err := u.up.Answer(tag, messages)
	if err != nil {
		return nil, u.explain(ctx, err)
	}
	var ids []mailbox.ID
	for _, uid := range uids {
		ids = append(ids, formatID(validity, imap.UID(uid)))
	}
	return ids, nil
}

// Close logs out and closes the connection.
func (u *Uploader) Close() error { return u.up.Close() }

func (u *Uploader) explain(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// atom is a keyword that can be sent (RFC 9051 section 9: flag-keyword).
var atom = regexp.MustCompile(`^\\?[A-Za-z0-9!#$&'+,./:;<=>?@^_` + "`" + `|~-]+$`)

// sendableFlags leaves out what a server sets by itself and what is no flag.
func sendableFlags(flags []string) []string {
	return slices.DeleteFunc(slices.Clone(flags), func(f string) bool {
		return strings.EqualFold(f, `\Recent`) || !atom.MatchString(f)
	})
}

// Spelling returns how a mailbox with this name is called on the server, if it
// is to be made: below the user's own namespace (RFC 2342), and with an
// underscore for what would separate levels. changed says that it had to be.
func (c *Conn) Spelling(ctx context.Context, n mailbox.Name) (m mailbox.Mailbox, changed bool, err error) {
	prefix, delimiter, err := c.namespace(ctx)
	if err != nil {
		return m, false, err
	}
	elems := n.Elems()
	for i, e := range elems {
		clean := e
		if delimiter != "" {
			clean = strings.ReplaceAll(e, delimiter, "_")
		}
		clean = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return '_'
			}
			return r
		}, clean)
		if clean == "" {
			clean = "_"
		}
		changed = changed || clean != e
		elems[i] = clean
	}
	if delimiter == "" && len(elems) > 1 {
		elems, changed = []string{strings.Join(elems, "_")}, true
	}
	shown := strings.Join(elems, delimiter)
	if inbox := len(elems) == 1 && strings.EqualFold(elems[0], "INBOX"); inbox {
		shown = "INBOX"
	} else if !strings.HasPrefix(shown, prefix) {
		shown = prefix + shown
	}
	raw, _ := c.wire.Raw(shown)
	return mailbox.Mailbox{Name: splitName(shown, delimiter), Wire: raw, Delimiter: delimiter}, changed, nil
}

// namespace returns what the names of the user's own mailboxes begin with, and
// what separates their levels.
func (c *Conn) namespace(ctx context.Context) (prefix, delimiter string, err error) {
	if c.wire.HasCap("NAMESPACE") {
		_, err := c.client.Namespace().Wait() // the answer goes to the wire
		if err = c.explain(ctx, err); err != nil && !retry.IsRefused(err) {
			return "", "", err
		}
		if prefix, delimiter = c.wire.Namespace(); delimiter != "" {
			return prefix, delimiter, nil
		}
	}
	list, err := c.client.List("", "", nil).Collect()
	if err = c.explain(ctx, err); err != nil && !retry.IsRefused(err) {
		return "", "", err
	}
	if len(list) > 0 && list[0].Delim != 0 {
		delimiter = string(list[0].Delim)
	}
	return "", delimiter, nil
}

// Create makes a mailbox, with its role where the server takes that (RFC 6154
// section 3), and subscribes to it.
func (c *Conn) Create(ctx context.Context, m mailbox.Mailbox) error {
	if !sendable(m) {
		return retry.Refused(errors.New("its name cannot be sent"))
	}
	shown := c.wire.Shown(m.Wire)
	var options *imap.CreateOptions
	if m.Role != "" && c.wire.HasCap("CREATE-SPECIAL-USE") {
		options = &imap.CreateOptions{SpecialUse: []imap.MailboxAttr{imap.MailboxAttr(m.Role)}}
	}
	err := c.explain(ctx, c.client.Create(shown, options).Wait())
	if retry.IsRefused(err) && options != nil { // one mailbox alone may have the role
		err = c.explain(ctx, c.client.Create(shown, nil).Wait())
	}
	if err != nil && !(retry.IsRefused(err) && strings.Contains(strings.ToUpper(err.Error()), "[ALREADYEXISTS]")) {
		return fmt.Errorf("create %s: %w", m.Name, err)
	}
	err = c.explain(ctx, c.client.Subscribe(shown).Wait())
	if retry.IsRefused(err) {
		err = nil // it is there; mail programs may hide it
	}
	return err
}
