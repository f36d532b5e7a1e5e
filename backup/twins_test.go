package backup_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mailstow/backup"
)

// labels is a server whose mailboxes share messages, as Gmail's labels do.
func labels() *server {
	s := &server{validity: 1, condstore: true}
	for i, name := range []string{"INBOX", "Work", "All"} {
		b := numbered(name, 1, 10*(i+1))
		for k := range b.messages {
			b.messages[k].object = fmt.Sprint("M", b.messages[k].uid)
		}
		s.boxes = append(s.boxes, b)
	}
	return s
}

func TestOneMessageInSeveralMailboxesIsDownloadedOnce(t *testing.T) {
	dir, s := t.TempDir(), labels()
	s.boxes[1].messages[2].flags = []string{`\Flagged`}
	result, _, err := run(t, dir, s, nil)
	if sum := result.Sum(); err != nil || s.fetched != 30 || sum.New != 60 || sum.Linked != 30 || sum.OnServer != 60 {
		t.Errorf("%d fetched, sum %+v, %v", s.fetched, sum, err)
	}
	for _, b := range s.boxes {
		holds(t, dir, b)
	}
	inodes := map[uint64]int{}
	paths, _ := filepath.Glob(filepath.Join(dir, "*/cur/*"))
	for _, p := range paths {
		fi, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		inodes[fi.Sys().(*syscall.Stat_t).Ino]++
	}
	if len(paths) != 60 || len(inodes) != 30 {
		t.Errorf("%d files with %d inodes, want 60 and 30", len(paths), len(inodes))
	}
	if flagged, _ := filepath.Glob(filepath.Join(dir, "*/cur/*:2,F")); len(flagged) != 1 {
		t.Errorf("%d links are flagged, want the one", len(flagged))
	}

	// A label that is set later costs nothing either.
	s.fetched = 0
	s.boxes[0].append(50)
	s.boxes[0].messages[10].object, s.boxes[0].messages[10].text = "M29", text(29)
	if result, _, err := run(t, dir, s, nil); err != nil || s.fetched != 0 || result.Sum().Linked != 1 {
		t.Errorf("another label: %d fetched, sum %+v, %v", s.fetched, result.Sum(), err)
	}
	holds(t, dir, s.boxes[0])
}

// The server's word is not enough where the archive has reason to doubt.
func TestTwinThatCannotBeCopiedIsDownloaded(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, dir string, s *server){
		"another size": func(_ *testing.T, _ string, s *server) {
			for i := range s.boxes[1].messages {
				s.boxes[1].messages[i].text += "more\r\n"
			}
		},
		"file damaged": func(t *testing.T, dir string, _ *server) {
			paths, _ := filepath.Glob(filepath.Join(dir, "INBOX/cur/*"))
			for _, p := range paths {
				b, err := os.ReadFile(p)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p, []byte(strings.Replace(string(b), "line", "LINE", 1)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
		"file removed": func(t *testing.T, dir string, _ *server) { remove(t, dir, "INBOX", 10) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, s := t.TempDir(), labels()
			s.boxes = s.boxes[:2]
			s.boxes[1].messages = s.boxes[1].messages[:10]
			work := s.boxes[1]
			s.boxes = s.boxes[:1]
			if _, _, err := run(t, dir, s, nil); err != nil {
				t.Fatal(err)
			}
			s.boxes = append(s.boxes, work)
			change(t, dir, s)
			if _, _, err := run(t, dir, s, nil); err != nil {
				t.Fatal(err)
			}
			holds(t, dir, work)
		})
	}
}

// Two copies of one message in one mailbox are two.
func TestTwinsInOneMailboxAreTwo(t *testing.T) {
	dir := t.TempDir()
	b := &box{name: "INBOX", messages: []message{{uid: 1, text: text(1), object: "M"}, {uid: 2, text: text(1), object: "M"}}}
	s := &server{validity: 1, boxes: []*box{b}}
	if result, _, err := run(t, dir, s, nil); err != nil || s.fetched != 1 || result.Sum().New != 2 {
		t.Errorf("%d fetched, sum %+v, %v", s.fetched, result.Sum(), err)
	}
	holds(t, dir, b)
}

// Where the first of two cannot be had, the other is fetched.
func TestTwinOfAMessageThatFailsIsDownloaded(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 9), numbered("Work", 101, 109)}, omit: ids(5)}
	for i := range 9 {
		s.boxes[0].messages[i].object = fmt.Sprint("M", i)
		s.boxes[1].messages[i].object, s.boxes[1].messages[i].text = fmt.Sprint("M", i), text(i+1)
	}
	result, _, err := run(t, dir, s, nil)
	if sum := result.Sum(); !errors.Is(err, backup.ErrIncomplete) || s.fetched != 9 || sum.New != 17 || sum.Failed != 1 {
		t.Errorf("%d fetched, sum %+v, %v", s.fetched, sum, err)
	}
	holds(t, dir, s.boxes[1])
}
