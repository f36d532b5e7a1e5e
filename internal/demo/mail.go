package demo

import (
	"encoding/base64"
	"fmt"
	"mime"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// sample is a message of the sample account.
type sample struct {
	mailbox string
	text    string
	date    time.Time
	flags   []imap.Flag
}

// boxes are the sample account's mailboxes, with their special use.
var boxes = []struct {
	name string
	use  imap.MailboxAttr
}{
	{"INBOX", ""},
	{"Sent", imap.MailboxAttrSent},
	{"Archive", imap.MailboxAttrArchive},
	{"Archive/2024", ""},
	{"Projekte/Übersicht", ""},
	{"收件箱旧", ""},
	{"Lists/Dr. Jones", ""},
	{"Empty", ""},
}

// samples makes the sample mail: ordinary and somewhat ugly.
func samples() []sample {
	day := time.Date(2024, 3, 1, 9, 30, 0, 0, time.FixedZone("", 3600))
	var all []sample
	add := func(mailbox, from, subject, body string, flags ...imap.Flag) {
		day = day.Add(26*time.Hour + 7*time.Minute)
		all = append(all, sample{mailbox, message(len(all)+1, from, subject, body, day), day, flags})
	}
	add("INBOX", "Ada Lovelace <ada@example.org>", "Notes on the engine", "It weaves algebraical patterns.\r\n", imap.FlagSeen)
	add("INBOX", "Grüße aus Köln <koeln@example.org>", "Schöne Grüße 🌻", "Bis bald!\r\n", imap.FlagSeen, imap.FlagFlagged)
	add("INBOX", "lists@example.org", "A line that begins with dots", "above\r\n.\r\n..\r\n.hidden\r\nbelow\r\n")
	add("INBOX", "陈 <chen@example.org>", "收件箱", "你好\r\n", imap.FlagSeen, "$Forwarded")
	add("INBOX", "long@example.org", "One very long line", strings.Repeat("no end in sight ", 4000)+"\r\n")
	add("INBOX", "photos@example.org", "Holiday, with an attachment", attachment(40<<10), imap.FlagSeen, imap.FlagAnswered)
	for i := range 14 {
		add("INBOX", fmt.Sprintf("Colleague %d <c%d@example.org>", i+1, i+1), fmt.Sprintf("Minutes of meeting %d", i+1),
			strings.Repeat(fmt.Sprintf("Item %d was discussed.\r\n", i+1), 20+i*7), imap.FlagSeen)
	}
	for i := range 6 {
		add("Sent", "Demo <demo@example.org>", fmt.Sprintf("Re: Minutes of meeting %d", i+1), "Thank you.\r\n", imap.FlagSeen)
		add("Archive/2024", "shop@example.org", fmt.Sprintf("Invoice %d", 20240000+i), attachment(8<<10), imap.FlagSeen, "invoice")
		add("Lists/Dr. Jones", "jones@example.org", fmt.Sprintf("Digest %d", i+1), "Today in archaeology.\r\n")
	}
	add("Projekte/Übersicht", "plan@example.org", "Projektplan", "1. anfangen\r\n2. aufhören\r\n", imap.FlagFlagged)
	add("收件箱旧", "alt@example.org", "旧邮件", "很久以前\r\n", imap.FlagSeen)
	twice := all[0] // the same message in a second mailbox
	twice.mailbox = "Archive"
	return append(all, twice)
}

func message(n int, from, subject, body string, date time.Time) string {
	name, address, ok := strings.Cut(from, " <")
	if ok {
		from = mime.QEncoding.Encode("utf-8", name) + " <" + address
	}
	return fmt.Sprintf("Received: from mail.example.org by mx.example.org; %s\r\nDate: %s\r\nFrom: %s\r\nTo: Demo <demo@example.org>\r\nSubject: %s\r\n"+
		"Message-ID: <%d.demo@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%s",
		date.Format(time.RFC1123Z), date.Add(-time.Minute).Format(time.RFC1123Z), from, mime.QEncoding.Encode("utf-8", subject), n, body)
}

// attachment returns a text with base64 lines for about n octets.
func attachment(n int) string {
	raw := make([]byte, n)
	for i := range raw {
		raw[i] = byte(i * i >> 3)
	}
	var b strings.Builder
	for text := base64.StdEncoding.EncodeToString(raw); text != ""; {
		k := min(76, len(text))
		b.WriteString(text[:k] + "\r\n")
		text = text[k:]
	}
	return b.String()
}
