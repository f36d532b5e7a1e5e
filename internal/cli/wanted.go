package cli

import (
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/internal/config"
	"mailstow/internal/filter"
	"mailstow/internal/netconn"
	"mailstow/internal/quantity"
	"mailstow/mailbox"
)

// defaultConnections is how many connections a backup over IMAP uses where
// nobody says otherwise. Providers allow 10 to 30 to an account, and people
// read their mail meanwhile.
const defaultConnections = 4

// want decides which of the account's mail is wanted, and how fast.
func (a *account) want(c *cli.Context, set config.Account) (err error) {
	a.connections = defaultConnections
	if a.provider != nil && a.provider.Limits.Connections > 0 {
		a.connections = min(a.connections, a.provider.Limits.Connections)
	}
	if set.Connections > 0 {
		a.connections = set.Connections
	}
	if c.IsSet("connections") {
		a.connections = c.Int("connections")
	}
	if a.protocol == mailbox.POP3 { // one session at a time has the mailbox: RFC 1939 section 4
		a.connections = 1
	}
	if a.transfer, err = size(c, "max-transfer", 0); err != nil {
		return err
	}
	a.download, a.upload = set.DailyDownload, set.DailyUpload
	a.budget()
	limit, err := size(c, "bwlimit", set.Bandwidth)
	if err != nil {
		return err
	}
	if limit > 0 {
		a.endpoint.Limit = netconn.NewLimit(limit)
	}
	if _, err := wanted(c, set, time.Now()); err != nil {
		return err
	}
	a.filter = func(now time.Time) filter.Filter {
		f, _ := wanted(c, set, now)
		return f
	}
	return nil
}

// size reads an option that is a size. It is usual if it is not given.
func size(c *cli.Context, name string, usual int64) (int64, error) {
	s := c.String(name)
	if s == "" {
		return usual, nil
	}
	n, err := quantity.Size(s)
	if err == nil && n == 0 {
		err = fmt.Errorf("%q is no limit", s)
	}
	if err != nil {
		return 0, &usageError{text: "--" + name + ": " + err.Error()}
	}
	return n, nil
}

// wanted reads which mail is wanted, if it is now. What the command line says
// of folders stands in place of what the config file says.
func wanted(c *cli.Context, set config.Account, now time.Time) (f filter.Filter, err error) {
	f = filter.Filter{Folders: set.Folders, Include: set.Include, Exclude: set.Exclude}
	if c.IsSet("folder") || c.IsSet("include") {
		f.Folders, f.Include = c.StringSlice("folder"), c.StringSlice("include")
	}
	if c.IsSet("exclude") {
		f.Exclude = c.StringSlice("exclude")
	}
	for _, pattern := range slices.Concat(f.Include, f.Exclude) {
		if err := filter.Check(pattern); err != nil {
			return f, &usageError{text: err.Error()}
		}
	}
	if f.MaxSize, err = size(c, "max-size", set.MaxSize); err != nil {
		return f, err
	}
	for name, moment := range map[string]*time.Time{"older-than": &f.Before, "newer-than": &f.NotBefore} {
		if s := c.String(name); s != "" {
			if *moment, err = quantity.Before(now, s); err != nil {
				return f, &usageError{text: "--" + name + ": " + err.Error()}
			}
		}
	}
	return f, nil
}

// wantedFlags are the options that say which mail is wanted.
func wantedFlags() []cli.Flag {
	return append(folderFlags(),
		text("older-than", "only mail older than `AGE`: 36h 90d 12w 6mo 1y, or a day: 2024-01-31"),
		text("newer-than", "only mail newer than `AGE`"),
		text("max-size", "no message over `SIZE`: 25M 2.5GB"),
	)
}

// folderFlags are the options that choose folders.
func folderFlags() []cli.Flag {
	return []cli.Flag{
		texts("folder", "only the folder `NAME`"),
		texts("include", "only folders that match `PATTERN`: * is anything within a level, ** any levels"),
		texts("exclude", `no folder that matches `+"`PATTERN`"+`, or has the role: 'Lists/**', '\Junk'`),
	}
}
