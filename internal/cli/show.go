package cli

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
)

// show makes text from a stranger safe for a terminal: control characters
// and those that change the direction of writing are spelled out.
func show(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !isPlain(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case isPlain(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// isPlain reports whether a character shows as itself and does nothing else.
func isPlain(r rune) bool {
	return r == unicode.ReplacementChar || unicode.IsPrint(r) && !unicode.Is(unicode.Bidi_Control, r)
}

func count(n int) string { return humanize.Comma(int64(n)) }

// messages counts messages in words.
func messages(n int) string {
	if n == 1 {
		return "1 message"
	}
	return count(n) + " messages"
}

func folders(n int) string {
	if n == 1 {
		return "1 folder"
	}
	return count(n) + " folders"
}

func octets(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// clock shows a duration as 4:09 or 1:02:03.
func clock(d time.Duration) string {
	s := int(d.Round(time.Second).Seconds())
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// local shows a time as people write it, with its offset.
func local(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04 -07:00")
}

// table lines columns up; a column whose head begins with ">" is set to the
// right.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) String() string {
	head := make([]string, len(t.head))
	right := make([]bool, len(t.head))
	for i, h := range t.head {
		head[i], right[i] = strings.TrimPrefix(h, ">"), strings.HasPrefix(h, ">")
	}
	all := append([][]string{head}, t.rows...)
	widths := make([]int, len(head))
	for _, row := range all {
		for i, cell := range row {
			widths[i] = max(widths[i], width(cell))
		}
	}
	var b strings.Builder
	for _, row := range all {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-width(cell))
			if right[i] {
				line.WriteString(pad + cell + "  ")
			} else {
				line.WriteString(cell + pad + "  ")
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// width is how many columns a terminal gives to a text.
func width(s string) int {
	n := 0
	for _, r := range s {
		n++
		if unicode.In(r, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana) || r >= 0xff01 && r <= 0xff60 || r >= 0x1f300 && r <= 0x1faff {
			n++
		}
	}
	return n
}
