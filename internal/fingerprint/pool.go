package fingerprint

import (
	"bytes"
	"slices"
)

// Pool holds archived messages that a server's may be recognised as. Each can be
// taken once: messages that are alike are several.
type Pool struct {
	sizes map[int64]bool // that they have, in one of the ways of counting
	any   bool           // of some, the size says nothing
	free  []Candidate    // in the order of their headers
	taken []bool
	from  map[Sum]int // where those with a header begin that are not taken
}

// NewPool makes a pool of candidates, whose order it changes.
func NewPool(free []Candidate) *Pool {
	p := &Pool{sizes: map[int64]bool{}, free: free, taken: make([]bool, len(free)), from: map[Sum]int{}}
	slices.SortStableFunc(free, func(a, b Candidate) int { return bytes.Compare(a.Header[:], b.Header[:]) })
	for _, c := range free {
		if c.Rewritten {
			p.any = true
		} else {
			for _, n := range c.sizes() {
				p.sizes[n] = true
			}
		}
	}
	return p
}

// HasSize reports whether a message of this size may be in the pool. An
// unknown size (-1) cannot be recognised: a header alone is not enough.
func (p *Pool) HasSize(size int64) bool { return p.sizes[size] || p.any && size >= 0 }

// Take takes a message with this size and header out of the pool; one with
// exactly this size if there is one, one whose file is there if there is one.
func (p *Pool) Take(size int64, h Header) (found Candidate, ok bool) {
	for _, fits := range []func(Candidate) bool{
		func(c Candidate) bool { return !c.Removed && c.Size == size },
		func(c Candidate) bool { return !c.Removed },
		func(Candidate) bool { return true },
	} {
		for _, sum := range []Sum{h.Sum, h.Rewritten} {
			for i := p.first(sum); i < len(p.free) && p.free[i].Header == sum; i++ {
				if c := p.free[i]; !p.taken[i] && c.Matches(size, h) && fits(c) {
					p.taken[i] = true
					return c, true
				}
			}
		}
	}
	return found, false
}

// first returns the place of the first message with this header that is not
// taken. Many may be alike.
func (p *Pool) first(header Sum) int {
	first, known := p.from[header]
	if !known {
		first, _ = slices.BinarySearchFunc(p.free, header, func(c Candidate, h Sum) int { return bytes.Compare(c.Header[:], h[:]) })
	}
	for ; first < len(p.free) && p.taken[first]; first++ {
	}
	if known || first+1 < len(p.free) && p.free[first+1].Header == header {
		p.from[header] = first
	}
	return first
}

// Rest returns what is left in the pool, by the digest of its octets.
func (p *Pool) Rest() map[Sum][]int64 {
	bySum := map[Sum][]int64{}
	for i, c := range p.free {
		if !p.taken[i] && !c.Removed {
			bySum[c.SHA256] = append(bySum[c.SHA256], c.Message)
		}
	}
	return bySum
}
