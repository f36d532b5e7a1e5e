package imapconn

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

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

// Tells reports whether [Uploader.Answer] returns IDs.
func (u *Uploader) Tells() bool { return u.up.Tells() }

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
	if strings.EqualFold(elems[0], "INBOX") { // RFC 9051 section 5.1
		elems[0] = "INBOX"
	}
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
	if c.own == nil {
		if prefix, delimiter, err = c.askNamespace(ctx); err != nil {
			return "", "", err
		}
		c.own = &[2]string{prefix, delimiter}
	}
	return c.own[0], c.own[1], nil
}

func (c *Conn) askNamespace(ctx context.Context) (prefix, delimiter string, err error) {
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

// Limits returns what the server says of how much it takes, and in which of the
// mailboxes it does not let the user store mail.
func (c *Conn) Limits(ctx context.Context, boxes []mailbox.Mailbox) (l mailbox.Limits, err error) {
	var asked []func() error // their answers go to the wire
	l.Denied = map[string]string{}
	l.Message, _ = strconv.ParseInt(c.wire.CapValue("APPENDLIMIT"), 10, 64)
	var each *imapclient.StatusCommand
	if c.wire.HasCap("APPENDLIMIT") { // each mailbox has its own
		each = c.client.Status("INBOX", &imap.StatusOptions{AppendLimit: true})
	}
	if c.wire.HasCap("QUOTA") {
		cmd := c.client.GetQuotaRoot("INBOX")
		asked = append(asked, func() error { _, err := cmd.Wait(); return err })
	}
	if c.wire.HasCap("ACL") {
		for _, m := range boxes {
			if sendable(m) {
				cmd := c.client.MyRights(c.wire.Shown(m.Wire))
				asked = append(asked, func() error { _, err := cmd.Wait(); return err })
			}
		}
	}
	if each != nil {
		data, err := each.Wait()
		if err = c.explain(ctx, err); err != nil && !retry.IsRefused(err) {
			return l, err
		}
		if err == nil && data.AppendLimit != nil {
			l.Message = int64(*data.AppendLimit)
		}
	}
	for _, wait := range asked {
		if err := c.explain(ctx, wait()); err != nil && !retry.IsRefused(err) {
			return l, err
		}
	}
	c.readQuotas(&l)
	for _, m := range boxes {
		if rights, told := c.wire.Rights(m.Wire); told && !strings.Contains(rights, "i") {
			l.Denied[m.Wire] = rights
		}
	}
	return l, nil
}

// readQuotas fills in what the server has said of its quotas, of several the one
// with the least room.
func (c *Conn) readQuotas(l *mailbox.Limits) {
	for _, q := range c.wire.Quotas() {
		switch free := q.Limit - q.Used; {
		case q.Resource == "STORAGE" && (l.Quota == 0 || free*1024 < l.Quota-l.Used):
			l.Used, l.Quota = q.Used*1024, q.Limit*1024
		case q.Resource == "MESSAGE" && (l.QuotaMessages == 0 || free < l.QuotaMessages-l.UsedMessages):
			l.UsedMessages, l.QuotaMessages = q.Used, q.Limit
		}
	}
}

// Flag gives messages of a mailbox flags and takes flags from them.
func (c *Conn) Flag(ctx context.Context, m mailbox.Mailbox, ids []mailbox.ID, add, remove []string) error {
	if !sendable(m) {
		return retry.Refused(errors.New("its name cannot be sent"))
	}
	c.selected = nil // what follows is for reading again
	data, err := c.client.Select(c.wire.Shown(m.Wire), nil).Wait()
	if err = c.explain(ctx, err); err != nil {
		return err
	}
	msgs, err := inMailbox(ids, data.UIDValidity)
	if err != nil {
		return err
	}
	for set := range uidSets(msgs, c.most(maxPerCommand)) {
		for _, change := range []struct {
			op    imap.StoreFlagsOp
			flags []string
		}{{imap.StoreFlagsAdd, add}, {imap.StoreFlagsDel, remove}} {
			var flags []imap.Flag
			for _, f := range sendableFlags(change.flags) {
				flags = append(flags, imap.Flag(f))
			}
			if len(flags) == 0 {
				continue
			}
			if err := c.store(ctx, set, change.op, flags...); err != nil {
				return err
			}
		}
	}
	return nil
}

// isThere reports whether CREATE was refused because there is such a mailbox;
// RFC 5530 has a code for that, which older servers do not send.
func isThere(err error) bool {
	words := strings.ToUpper(err.Error())
	return strings.Contains(words, "[ALREADYEXISTS]") || strings.Contains(words, "ALREADY EXISTS")
}

// Create makes mailboxes, with their roles where the server takes that (RFC 6154
// section 3), and subscribes to them, in two round trips. It tells by their
// spelling which it made, and what the server says of others; one that is
// neither was there.
func (c *Conn) Create(ctx context.Context, boxes []mailbox.Mailbox) (made map[string]bool, refused map[string]error, err error) {
	made, refused = map[string]bool{}, map[string]error{}
	type asked struct {
		m                 mailbox.Mailbox
		create, subscribe *imapclient.Command
	}
	var all []asked
	for again := range 2 { // one mailbox alone may have a role: the second time none is asked for
		all = all[:0]
		for _, m := range boxes {
			var options *imap.CreateOptions
			_, no := refused[m.Wire]
			if again == 0 && m.Role != "" && c.wire.HasCap("CREATE-SPECIAL-USE") {
				options = &imap.CreateOptions{SpecialUse: []imap.MailboxAttr{imap.MailboxAttr(m.Role)}}
			}
			switch {
			case !sendable(m):
				refused[m.Wire] = retry.Refused(errors.New("its name cannot be sent"))
			case again == 0 || no && m.Role != "":
				shown := c.wire.Shown(m.Wire)
				all = append(all, asked{m, c.client.Create(shown, options), c.client.Subscribe(shown)})
			}
		}
		for _, a := range all {
			err := c.explain(ctx, a.create.Wait())
			if err != nil && !retry.IsRefused(err) {
				return made, refused, err
			}
			delete(refused, a.m.Wire)
			if err == nil {
				made[a.m.Wire] = true
			}
			if err != nil && !isThere(err) {
				refused[a.m.Wire] = err
			}
			// If it is not subscribed to, mail programs may hide it; it is there.
			if err := c.explain(ctx, a.subscribe.Wait()); err != nil && !retry.IsRefused(err) {
				return made, refused, err
			}
		}
	}
	return made, refused, nil
}
