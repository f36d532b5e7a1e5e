package imapconn_test

import (
	"strings"
	"testing"

	"mailstow/mailbox"
)

func TestLimitsAreThoseOfTheServer(t *testing.T) {
	boxes := []mailbox.Mailbox{{Name: mailbox.NewName("INBOX"), Wire: "INBOX"}, {Name: mailbox.NewName("Shared", "x"), Wire: "Shared/x", Delimiter: "/"}, {Name: mailbox.NewName("Odd"), Wire: `O"d`}}
	for name, c := range map[string]struct {
		caps    string
		answers map[string]string
		want    mailbox.Limits
		denied  string
	}{
		"nothing told": {},
		"all": {
			caps: "QUOTA ACL APPENDLIMIT=35651584",
			answers: map[string]string{
				"GETQUOTAROOT":          "* QUOTAROOT INBOX \"\" big\r\n* QUOTA \"\" (STORAGE 100 2048 MESSAGE 5 100)\r\n* QUOTA \"big one\" (STORAGE 0 1048576)\r\nTAG OK\r\n",
				"MYRIGHTS INBOX":        "* MYRIGHTS INBOX lrswipkxtecda\r\nTAG OK\r\n",
				"MYRIGHTS \"Shared/x\"": "* MYRIGHTS Shared/x lrs\r\nTAG OK\r\n",
				"MYRIGHTS \"O\\\"d\"":   "* MYRIGHTS \"O\\\"d\" \"lr\"\r\nTAG OK\r\n",
			},
			want:   mailbox.Limits{Message: 35651584, Used: 100 << 10, Quota: 2048 << 10, UsedMessages: 5, QuotaMessages: 100},
			denied: "Shared/x",
		},
		"each mailbox has its limit": {
			caps:    "APPENDLIMIT",
			answers: map[string]string{"STATUS": "* STATUS INBOX (APPENDLIMIT 1000)\r\nTAG OK\r\n"},
			want:    mailbox.Limits{Message: 1000},
		},
		"refused, and nonsense": {
			caps: "QUOTA ACL APPENDLIMIT",
			answers: map[string]string{
				"GETQUOTAROOT": "* QUOTA x\r\n* QUOTA x (STORAGE)\r\n* QUOTA x (STORAGE a b)\r\n* QUOTA x (STORAGE 5 0)\r\n* QUOTA x (STORAGE -5 99999999999999999999)\r\nTAG NO nothing\r\n",
				"MYRIGHTS":     "* MYRIGHTS\r\n* MYRIGHTS INBOX\r\nTAG NO [NOPERM] not yours\r\n",
				"STATUS":       "* STATUS INBOX (APPENDLIMIT NIL)\r\nTAG NO\r\n",
			},
		},
	} {
		s := &script{caps: c.caps, answers: func(command string) string {
			best := ""
			for prefix := range c.answers {
				if strings.HasPrefix(command, prefix) && len(prefix) > len(best) {
					best = prefix
				}
			}
			return c.answers[best]
		}}
		l, err := s.dial(t).Limits(t.Context(), boxes)
		denied := l.Denied
		l.Denied = nil
		if err != nil || l.Message != c.want.Message || l.Used != c.want.Used || l.Quota != c.want.Quota || l.QuotaMessages != c.want.QuotaMessages || l.UsedMessages != c.want.UsedMessages {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
		if _, no := denied[c.denied]; no != (c.denied != "") || denied["INBOX"] != "" {
			t.Errorf("%s: denied are %v", name, denied)
		}
		if c.denied != "" && denied[`O"d`] != "lr" {
			t.Errorf("%s: denied are %v", name, denied)
		}
	}
}

// The mailbox may have been made anew since its messages were listed.
func TestFlagsAreGivenToTheMessagesThatWereMeant(t *testing.T) {
	s := &script{answers: func(command string) string {
		if strings.HasPrefix(command, "SELECT") {
			return strings.ReplaceAll(selected, "READ-ONLY", "READ-WRITE")
		}
		return ""
	}}
	conn, box := s.dial(t), mailbox.Mailbox{Name: mailbox.NewName("INBOX"), Wire: "INBOX"}
	if err := conn.Flag(t.Context(), box, []mailbox.ID{"7:4", "7:5"}, []string{`\Seen`, "bad flag"}, []string{"work"}); err != nil {
		t.Fatal(err)
	}
	if n := s.commands(`UID STORE 4:5 +FLAGS.SILENT (\Seen)`) + s.commands("UID STORE 4:5 -FLAGS.SILENT (work)"); n != 2 {
		t.Errorf("said %q", s.said)
	}
	if err := conn.Flag(t.Context(), box, []mailbox.ID{"8:4"}, []string{`\Seen`}, nil); err == nil || s.commands("UID STORE") != 2 {
		t.Errorf("other UIDVALIDITY: %v, said %q", err, s.said)
	}
}
