package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"mailstow/internal/config"
	"mailstow/maildir"
)

// place is one account's archive on disk.
type place struct {
	name string // what the user calls it
	dir  string
}

// places returns the archives that the arguments name (accounts, archives or
// the root above them), or all there are.
func (p *program) places(c *cli.Context, args []string) ([]place, error) {
	cfg, err := p.readConfig(c)
	if err != nil {
		return nil, err
	}
	root := p.archiveRoot(c, cfg)
	var found []place
	for _, arg := range args {
		at, err := p.placesOf(c, cfg, root, arg)
		if err != nil {
			return nil, err
		}
		found = append(found, at...)
	}
	if len(args) > 0 {
		return found, nil
	}
	if cfg != nil && len(cfg.Accounts) > 0 && c.String("to") == "" {
		for _, set := range cfg.Accounts {
			found = append(found, place{set.Name, dirOf(c, root, set)})
		}
		return found, nil
	}
	if found = below(root); len(found) == 0 {
		return nil, configFailed("there is no archive in "+root, "name it: mailstow "+c.Command.Name+" DIR")
	}
	return found, nil
}

func (p *program) placesOf(c *cli.Context, cfg *config.File, root, arg string) ([]place, error) {
	if cfg != nil {
		for _, set := range cfg.Accounts {
			if set.Name == arg {
				return []place{{set.Name, dirOf(c, root, set)}}, nil
			}
		}
	}
	for _, dir := range []string{arg, filepath.Join(root, arg)} {
		if maildir.Exists(dir) {
			return []place{{filepath.Base(dir), dir}}, nil
		}
		if _, err := os.ReadDir(dir); errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
		if at := below(dir); len(at) > 0 {
			return at, nil
		}
	}
	return nil, configFailed(fmt.Sprintf("there is no archive in %s, and no account of that name", redacted(arg)), "check the path; mailstow backup makes an archive")
}

// below returns the archives in a root.
func below(root string) []place {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil
	}
	var found []place
	for _, e := range entries {
		if dir := filepath.Join(root, e.Name()); maildir.Exists(dir) {
			found = append(found, place{e.Name(), dir})
		}
	}
	return found
}
