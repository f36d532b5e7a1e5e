package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/semaphore"

	"mailstow/internal/config"
	"mailstow/internal/filter"
	"mailstow/maildir"
)

// pairsFlags are the options of commands that work on a list.
func pairsFlags() []cli.Flag {
	return []cli.Flag{
		text("pairs", "work on each line of `FILE`: source,destination,... (see mailstow migrate)"),
		text("pairs-format", "`FORMAT` of that file: csv, toml, imapsync (default: by its name)"),
		number("jobs", "`N` accounts at the same time", 4),
		number("host-connections", "at most `N` connections to one host, whatever the accounts", 20),
	}
}

// pair is a line of a list, ready to be worked on.
type pair struct {
	config.Pair
	dir         string   // the archive between the two
	source      *account // nil where that is all there is
	destination *account
}

// pairs reads the list that --pairs names. All that is wrong with it is told
// at once.
func (p *program) pairs(c *cli.Context) ([]*pair, error) {
	path := c.String("pairs")
	if c.NArg() > 0 {
		return nil, &usageError{text: "--pairs names all accounts, and the command line names more", hint: "mailstow " + c.Command.Name + " --pairs FILE"}
	}
	for _, f := range loginFlags() {
		if name := f.Names()[0]; c.IsSet(name) && !slices.Contains([]string{"tls-ca", "allow-insecure", "timeout"}, name) {
			return nil, &usageError{text: fmt.Sprintf("--%s is for one account, and --pairs names many", name), hint: "give each its login in " + path}
		}
	}
	cfg, err := p.readConfig(c)
	if err != nil {
		return nil, err
	}
	getenv := p.Getenv
	if c.Command.Name == "status" { // it needs no password
		getenv = nil
	}
	read, err := config.ReadPairs(path, c.String("pairs-format"), p.Getenv("HOME"), getenv)
	var mistakes *config.Errors
	var mistake *config.Error
	switch {
	case errors.As(err, &mistakes):
	case errors.As(err, &mistake):
		mistakes = &config.Errors{Path: path, All: []*config.Error{mistake}}
	case err != nil:
		return nil, configFailed("the list cannot be read: "+err.Error(), "")
	default:
		mistakes = &config.Errors{Path: path}
	}
	root, all := p.archiveRoot(c, cfg), []*pair{}
	dirs := map[string]int{}
	for _, line := range read {
		pr, err := p.makePair(c, cfg, root, line)
		if err != nil {
			mistakes.All = append(mistakes.All, mistakeOf(path, line.Line, err))
			continue
		}
		if other, ok := dirs[pr.dir]; ok && pr.source != nil {
			mistakes.All = append(mistakes.All, &config.Error{Path: path, Line: line.Line, Text: fmt.Sprintf("its source has the same directory in the archive as that of line %d: %s", other, pr.dir)})
		}
		dirs[pr.dir] = line.Line
		all = append(all, pr)
	}
	if len(mistakes.All) == 0 {
		return all, nil
	}
	pr := problem{what: fmt.Sprintf("%s: nothing was begun: %s", path, mistakesIn(len(mistakes.All))), status: exitConfig, code: "config"}
	for _, e := range mistakes.All {
		text := e.Text
		if e.Line > 0 {
			text = fmt.Sprintf("line %d: %s", e.Line, text)
		}
		if e.Hint != "" {
			text += " (" + e.Hint + ")"
		}
		pr.details = append(pr.details, text)
	}
	return nil, &problemError{problem: pr}
}

func mistakesIn(n int) string {
	if n == 1 {
		return "there is a mistake in it"
	}
	return fmt.Sprintf("there are %d mistakes in it", n)
}

func mistakeOf(path string, line int, err error) *config.Error {
	e := &config.Error{Path: path, Line: line, Text: err.Error()}
	var pr *problemError
	var usage *usageError
	switch {
	case errors.As(err, &pr):
		e.Text, e.Hint = pr.what, pr.do
	case errors.As(err, &usage):
		e.Text, e.Hint = usage.text, usage.hint
	}
	return e
}

// makePair makes the accounts of a line.
func (p *program) makePair(c *cli.Context, cfg *config.File, root string, line config.Pair) (pr *pair, err error) {
	p.several, p.beside = true, true // no option of the command line, and no MAILSTOW_PASSWORD, is for one of many
	defer func() { p.beside, p.storing = false, false }()
	pr = &pair{Pair: line}
	p.storing = true
	if pr.destination, err = p.sideOf(c, cfg, root, line.Destination); err != nil {
		return nil, err
	}
	if err := takesMail(pr.destination); err != nil {
		return nil, err
	}
	p.storing = false
	pr.destination.pair = &pr.Pair
	if fi, err := os.Stat(line.Source.Server); err == nil && fi.IsDir() && !strings.Contains(line.Source.Server, "://") {
		pr.dir = line.Source.Server
		if !maildir.Exists(pr.dir) {
			return nil, configFailed(pr.dir+" is no archive", "make one of it first: mailstow migrate DIR DESTINATION")
		}
		return pr, nil
	}
	if pr.source, err = p.sideOf(c, cfg, root, line.Source); err != nil {
		return nil, err
	}
	pr.dir = pr.source.dir
	return pr, nil
}

// sideOf makes the account of one side of a line: a URL, or an account of the
// config file.
func (p *program) sideOf(c *cli.Context, cfg *config.File, root string, side config.Account) (*account, error) {
	_, configured := cfg.Account(side.Server)
	if !configured && strings.Contains(side.Server, "@") && !strings.Contains(side.Server, "://") {
		side.Address, side.Server = side.Server, ""
	}
	if side.Server != "" && !strings.Contains(side.Server, "://") {
		if side.User != "" || side.HasPassword || side.PasswordVar != "" || side.PasswordFile != "" || side.PasswordCommand != nil {
			return nil, configFailed(fmt.Sprintf("%q is an account of the config file, which says how to log in", side.Server), "leave its user and password out, or give a URL")
		}
		a, err := p.account(c, cfg, root, side.Server)
		if err == nil && (side.Folders != nil || side.Include != nil || side.Exclude != nil || side.MaxSize > 0) {
			a.filter = func(now time.Time) filter.Filter {
				f, _ := wanted(c, side, now)
				return f
			}
		}
		return a, err
	}
	return p.unnamed(c, root, side)
}

// bulk works on a list.
type bulk struct {
	p     *program
	c     *cli.Context
	out   *output
	hosts *hosts
	work  func(*pair) *proof

	mu    sync.Mutex
	known map[string]bool
	dirs  map[string]*sync.Mutex // one at a time works on an archive
	queue []*pair
	file  os.FileInfo // when it was read last
	done  []*proof
}

// hosts bounds the connections to each.
type hosts struct {
	most int64

	mu  sync.Mutex
	all map[string]*semaphore.Weighted
}

func newHosts(c *cli.Context) *hosts {
	return &hosts{most: int64(max(c.Int("host-connections"), 2)), all: map[string]*semaphore.Weighted{}}
}

// enter waits until the accounts of a pair may connect, each with as many
// connections as it can have at once; leave says that they have ended. All
// enter hosts in the same order, so that two never wait for each other.
func (h *hosts) enter(ctx context.Context, pr *pair) (leave func(), err error) {
	need := map[string]int64{}
	for _, a := range []*account{pr.destination, pr.source} {
		if a != nil {
			a.connections = int(max(min(int64(a.connections), h.most/4), 1))
			need[strings.ToLower(a.endpoint.Addr)] += 2 * int64(a.connections) // some look while others send
		}
	}
	var entered []func()
	leave = func() {
		for _, f := range entered {
			f()
		}
	}
	for _, host := range slices.Sorted(maps.Keys(need)) {
		sem, n := h.of(host), min(need[host], h.most)
		if sem.Acquire(ctx, n) != nil {
			leave()
			return nil, context.Cause(ctx)
		}
		entered = append(entered, func() { sem.Release(n) })
	}
	return leave, nil
}

func (h *hosts) of(host string) *semaphore.Weighted {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all[host] == nil {
		h.all[host] = semaphore.NewWeighted(h.most)
	}
	return h.all[host]
}

// onPairs works on each line of the list; lines that come into the file
// meanwhile are worked on too.
func (p *program) onPairs(c *cli.Context, work func(*bulk, *pair) *proof) error {
	all, err := p.pairs(c)
	if err != nil {
		return err
	}
	if c.Int("host-connections") < 2 {
		return &usageError{text: "--host-connections: there must be two at least, one to look and one to send"}
	}
	jobs := max(c.Int("jobs"), 1)
	var named []*account
	b := &bulk{p: p, c: c, hosts: newHosts(c), known: map[string]bool{}, dirs: map[string]*sync.Mutex{}}
	b.file, _ = os.Stat(c.String("pairs"))
	for _, pr := range all {
		b.add(pr)
		named = append(named, pr.destination)
	}
	b.out = p.newOutput(c, c.Command.Name, named)
	defer b.out.close()
	b.out.sharers = 2 * jobs
	b.work = func(pr *pair) *proof { return work(b, pr) }
	var wg sync.WaitGroup
	for range jobs {
		wg.Go(b.labour)
	}
	wg.Wait()
	return b.finish()
}

func (b *bulk) add(pr *pair) {
	if !b.known[pr.Key()] {
		b.known[pr.Key()] = true
		b.queue = append(b.queue, pr)
	}
}

// next returns a pair that nobody works on, nil if there is none.
func (b *bulk) next() *pair {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reread()
	if len(b.queue) == 0 {
		return nil
	}
	pr := b.queue[0]
	b.queue = b.queue[1:]
	return pr
}

// reread takes in lines that have come into the file.
func (b *bulk) reread() {
	now, err := os.Stat(b.c.String("pairs"))
	if err != nil || b.file != nil && now.ModTime().Equal(b.file.ModTime()) && now.Size() == b.file.Size() {
		return
	}
	b.file = now
	all, err := b.p.pairs(b.c)
	if err != nil {
		var pr *problemError
		if errors.As(err, &pr) {
			pr.what += "; going on with the list as it was"
			b.out.remark(pr.problem)
		}
		return
	}
	for _, pr := range all {
		b.add(pr)
	}
}

func (b *bulk) labour() {
	for b.c.Context.Err() == nil {
		pr := b.next()
		if pr == nil {
			return
		}
		r := b.one(pr)
		r.line = pr.Line
		b.mu.Lock()
		b.done = append(b.done, r)
		b.mu.Unlock()
		b.out.pairDone(r)
	}
}

// one works on one pair.
func (b *bulk) one(pr *pair) *proof {
	b.mu.Lock()
	if b.dirs[pr.dir] == nil {
		b.dirs[pr.dir] = &sync.Mutex{}
	}
	alone := b.dirs[pr.dir]
	b.mu.Unlock()
	alone.Lock()
	defer alone.Unlock()
	leave, err := b.hosts.enter(b.c.Context, pr)
	if err != nil {
		r := &proof{account: pr.destination, dir: pr.dir, command: b.c.Command.Name}
		problem := explain(b.c.Context, pr.destination.name, err)
		r.problem = &problem
		return r
	}
	defer leave()
	return b.work(pr)
}

// finish shows how it went with all.
func (b *bulk) finish() error {
	for _, pr := range b.queue { // interrupted
		p := explain(b.c.Context, pr.destination.name, context.Cause(b.c.Context))
		p.what = "not begun: " + p.what
		b.done = append(b.done, &proof{account: pr.destination, dir: pr.dir, command: b.c.Command.Name, problem: &p, line: pr.Line})
	}
	slices.SortFunc(b.done, func(x, y *proof) int { return x.line - y.line })
	var statuses []int
	for _, r := range b.done {
		statuses = append(statuses, r.status(r.before()))
	}
	status := exitOK
	if len(statuses) > 0 {
		status = together(statuses)
	}
	if b.c.Context.Err() != nil {
		status = explain(b.c.Context, "", context.Cause(b.c.Context)).status
	}
	if b.c.Command.Name == "verify" && slices.Contains(statuses, exitDamaged) {
		status = exitDamaged
	}
	dir := b.c.String("report")
	if dir != "" {
		if err := writeReport(dir, b.c.Command.Name, b.done); err != nil {
			b.out.remark(problem{what: "the report cannot be written: " + err.Error()})
			status = max(status, exitDisk)
			dir = ""
		}
	}
	b.out.pairsDone(b.done, status, dir)
	if status != exitOK {
		return &saidError{status}
	}
	return nil
}

// migratePairs moves each pair of the list.
func (p *program) migratePairs(c *cli.Context) error {
	if _, err := pushOptions(c, time.Now()); err != nil {
		return err
	}
	return p.onPairs(c, func(b *bulk, pr *pair) *proof {
		if pr.source == nil {
			return p.pushOne(c, "migrate", pr.dir, pr.destination, b.out)
		}
		return p.move(c, pr.source, pr.destination, b.out)
	})
}

// verifyPairs proves of each pair of the list that the archive is whole and
// that its destination has all of it.
func (p *program) verifyPairs(c *cli.Context, o maildir.VerifyOptions) error {
	return p.onPairs(c, func(b *bulk, pr *pair) *proof {
		failed := func(err error) *proof {
			problem := explain(c.Context, pr.destination.name, err)
			return &proof{account: pr.destination, dir: pr.dir, command: "verify", problem: &problem}
		}
		if c.Bool("accept-removed") {
			if err := acceptRemoved(c.Context, place{pr.destination.name, pr.dir}); err != nil {
				return failed(err)
			}
		}
		ar, err := maildir.Open(c.Context, pr.dir, maildir.Options{})
		if err != nil {
			return failed(err)
		}
		v, err := ar.Verify(c.Context, o, func(int) {})
		ar.Close()
		if err != nil {
			return failed(err)
		}
		r, err := p.prove(c, pr.dir, pr.destination, b.out)
		if err != nil {
			return failed(err)
		}
		if v.Damaged() {
			r.damaged(pr.dir)
		}
		r.unknown(foreignIn(v))
		return r
	})
}
