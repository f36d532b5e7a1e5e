package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"mailstow/backup"
	"mailstow/internal/report"
	"mailstow/mailbox"
	"mailstow/maildir"
)

// countedFor is how long what was read or stored counts as of the same day. It is
// less than a day, because runs begin at the same time every night, and take some:
// with 24 hours every second one would find that nothing may be read yet.
const countedFor = 22 * time.Hour

// budget fills in what the provider allows in a day where the user does not say
// it. It stays below: other programs read the same mail, and who goes over it is
// locked out.
func (a *account) budget() {
	var down, up int64
	if a.provider != nil {
		down, up = a.provider.Limits.DailyDownload, a.provider.Limits.DailyUpload
		if a.protocol == mailbox.POP3 {
			down = a.provider.Limits.DailyPOP3
		}
	}
	for _, b := range []struct {
		mine    *int64
		allowed int64
	}{{&a.download, down}, {&a.upload, up}} {
		if *b.mine == 0 {
			*b.mine = b.allowed / 100 * 95
		}
		*b.mine = max(*b.mine, 0)
	}
}

// downloadLeft returns how many octets may be read from the account yet, -1 for
// any number, and for 0 why.
func downloadLeft(ctx context.Context, ar *maildir.Archive, a *account, now time.Time) (left int64, spent string, err error) {
	return budgetLeft(ctx, a, a.download, ar.PulledSince, now, "daily_download", "read")
}

// uploadLeft returns how many octets may be stored on the account's server yet,
// as [downloadLeft] does.
func uploadLeft(ctx context.Context, ar *maildir.Archive, a *account, now time.Time) (left int64, spent string, err error) {
	return budgetLeft(ctx, a, a.upload, ar.SentSince, now, "daily_upload", "stored")
}

func budgetLeft(ctx context.Context, a *account, most int64, since func(context.Context, string, time.Time) (int64, time.Time, error), now time.Time, key, done string) (left int64, spent string, err error) {
	if most == 0 {
		return -1, "", nil
	}
	n, first, err := since(ctx, a.source(), now.Add(-countedFor))
	if left = max(most-n, 0); left == 0 {
		spent = spentBudget(key, done, n, first)
	}
	return left, spent, err
}

func spentBudget(key, done string, n int64, first time.Time) string {
	return fmt.Sprintf("%s: %s were %s since %s; go on after %s", key, octets(n), done, local(first), local(first.Add(countedFor)))
}

// stoppedEarly says why a run ended before it had everything. budget says that
// what may be read in a day was spent.
func stoppedEarly(a *account, result report.Result, paused *backup.PausedError, budget bool, now time.Time) problem {
	pr := problem{
		what: fmt.Sprintf("stopped early; %s to go", messages(result.Missing())), why: paused.Reason,
		do: "nothing; the next run goes on", status: exitLater, code: "paused",
	}
	_, answer, asked := strings.Cut(paused.Reason, "the server asks to be left alone: ")
	switch {
	case budget:
		pr.code, pr.why = "daily_limit", fmt.Sprintf("daily_download: %s may be read in a day", octets(a.download))
		pr.do = "nothing; the next run after " + local(now.Add(countedFor)) + " goes on"
	case asked && strings.Contains(strings.ToLower(answer), "bandwidth limits"): // Gmail
		whose := "the provider"
		if a.provider != nil {
			whose = a.provider.Title
		}
		pr.what = fmt.Sprintf("%s's daily limit is reached; %s to go", whose, messages(result.Missing()))
		pr.code, pr.server, pr.why = "daily_limit", answer, ""
		pr.do = "nothing; the next run after " + local(now.Add(countedFor)) + " goes on. Lower daily_download to avoid the lock-out"
	}
	return pr
}

// hidden tells of mailboxes of which the provider may show a part only.
func (o *output) hidden(a *account, result report.Result) {
	if a.provider == nil {
		return
	}
	for _, t := range result.Tallies {
		for _, n := range a.provider.Limits.Shown {
			if t.OnServer == n {
				o.remark(problem{
					account: a.name, code: "server_hides_mail",
					what: fmt.Sprintf("warning: %s shows exactly %s; %s may hide older mail", t.Mailbox, messages(n), a.provider.Title),
					why:  "it can be set, or is set, to show programs so many of a folder and no more",
					do:   hiddenHelp(a),
				})
			}
		}
	}
}

func hiddenHelp(a *account) string {
	if first := a.provider.IMAP[0]; len(a.provider.IMAP) > 1 && !strings.HasSuffix(first, "://"+a.host) {
		return fmt.Sprintf("server = %q   (it shows more, and is read-only)", first)
	}
	return "look at the provider's settings for IMAP"
}
