package backup_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A mailbox that was renamed or moved keeps its folder: nothing is downloaded
// again, nothing is there twice.
func TestRenamedMailboxKeepsItsFolder(t *testing.T) {
	for name, c := range map[string]struct {
		rename  func(s *server)
		fetched int
		folders []string // with messages
	}{
		"same IDs":        {func(s *server) { s.boxes[1].name = "Fresh" }, 0, []string{"Fresh", "INBOX", "Work/Sub"}},
		"other IDs":       {func(s *server) { s.validity, s.boxes[1].name = 2, "Fresh" }, 0, []string{"Fresh", "INBOX", "Work/Sub"}},
		"moved":           {func(s *server) { s.boxes[1].name = "Deep/er/Old" }, 0, []string{"Deep/er/Old", "INBOX", "Work/Sub"}},
		"with a new mail": {func(s *server) { s.boxes[1].name = "Fresh"; s.boxes[1].append(900) }, 1, []string{"Fresh", "INBOX", "Work/Sub"}},
		"tree": {func(s *server) {
			s.boxes[2].name, s.boxes[1].name = "Job/Sub", "Job/Old"
		}, 0, []string{"INBOX", "Job/Old", "Job/Sub"}},
		"another mailbox": {func(s *server) { s.boxes[1] = numbered("Fresh", 400, 420) }, 21, []string{"Fresh", "INBOX", "Work/Old", "Work/Sub"}},
		"below itself":    {func(s *server) { s.boxes[1].name = "Work/Old/Older" }, 20, []string{"INBOX", "Work/Old", "Work/Old/Older", "Work/Sub"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := &server{validity: 1, condstore: true, boxes: []*box{numbered("INBOX", 1, 5), numbered("Work/Old", 101, 120), numbered("Work/Sub", 201, 230)}}
			if _, _, err := run(t, dir, s, nil); err != nil {
				t.Fatal(err)
			}
			c.rename(s)
			s.fetched = 0
			result, _, err := run(t, dir, s, nil)
			if err != nil || s.fetched != c.fetched {
				t.Errorf("%d fetched, want %d; sum %+v, %v", s.fetched, c.fetched, result.Sum(), err)
			}
			var folders []string
			filepath.WalkDir(dir, func(p string, _ os.DirEntry, _ error) error {
				if files, _ := filepath.Glob(filepath.Join(p, "cur", "*")); len(files) > 0 {
					rel, _ := filepath.Rel(dir, p)
					folders = append(folders, rel)
				}
				return nil
			})
			if slices.Sort(folders); !slices.Equal(folders, c.folders) {
				t.Errorf("folders = %q, want %q", folders, c.folders)
			}
			for _, b := range s.boxes {
				holds(t, dir, b)
			}
			s.fetched = 0
			if result, _, err := run(t, dir, s, nil); err != nil || s.fetched != 0 || result.Sum().New+result.Sum().Again != 0 {
				t.Errorf("after: %d fetched, sum %+v, %v", s.fetched, result.Sum(), err)
			}
		})
	}
}
