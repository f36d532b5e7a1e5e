// Package quantity reads sizes, ages and lengths of time as people write them.
package quantity

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var sizeForm = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) *([kmgt]?)(ib|b)?$`)

// Size reads a number of octets: "25M" and "25MiB" are 25 times 1024 squared,
// "25MB" is 25,000,000.
func Size(s string) (int64, error) {
	m := sizeForm.FindStringSubmatch(strings.ToLower(strings.TrimSpace(s)))
	if m == nil {
		return 0, fmt.Errorf(`%q is no size; write it like "25M" or "2.5GB"`, s)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	unit := 1024.0
	if m[3] == "b" {
		unit = 1000
	}
	if m[2] != "" {
		n *= math.Pow(unit, float64(1+strings.Index("kmgt", m[2])))
	}
	if err != nil || n >= 1<<62 {
		return 0, fmt.Errorf("%q is too much", s)
	}
	return int64(n), nil
}

// Duration reads a length of time that is more than nothing: what Go reads, and
// days and weeks.
func Duration(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	for suffix, unit := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if number, ok := strings.CutSuffix(s, suffix); ok {
			if n, err := strconv.ParseFloat(number, 64); err == nil && n*float64(unit) >= 1 && n*float64(unit) < math.MaxInt64 {
				return time.Duration(n * float64(unit)), nil
			}
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return d, nil
	}
	return 0, fmt.Errorf(`%q is no length of time; write it like "90s", "15m", "6h" or "7d"`, s)
}

var ageForm = regexp.MustCompile(`^([0-9]{1,5})(h|d|w|mo|y)$`)

// Before returns the moment that an age such as "90d" reaches back to, or the
// beginning of a day such as "2024-01-31" in now's time zone.
func Before(now time.Time, s string) (time.Time, error) {
	s = strings.TrimSpace(s)
	if day, err := time.ParseInLocation(time.DateOnly, s, now.Location()); err == nil {
		return day, nil
	}
	m := ageForm.FindStringSubmatch(strings.ToLower(s))
	if m == nil {
		return time.Time{}, fmt.Errorf(`%q is no age and no day; write it like "36h", "90d", "12w", "6mo", "1y" or "2024-01-31"`, s)
	}
	n, _ := strconv.Atoi(m[1])
	switch m[2] {
	case "h":
		return now.Add(-time.Duration(n) * time.Hour), nil
	case "d":
		return now.AddDate(0, 0, -n), nil
	case "w":
		return now.AddDate(0, 0, -7*n), nil
	case "mo":
		return now.AddDate(0, -n, 0), nil
	}
	return now.AddDate(-n, 0, 0), nil
}

// SizeOrPercent reads a number of octets, or a part of something: "80%".
func SizeOrPercent(s string) (octets int64, percent float64, err error) {
	if percent, ok, err := parsePercent(s); ok {
		return 0, percent, err
	}
	octets, err = Size(s)
	if err == nil && octets == 0 {
		err = fmt.Errorf("%q is nothing", s)
	}
	return octets, 0, err
}

// CountOrPercent reads a number, or a part of something: "25%".
func CountOrPercent(s string) (n int, percent float64, err error) {
	if percent, ok, err := parsePercent(s); ok {
		return 0, percent, err
	}
	n, err = strconv.Atoi(strings.TrimSpace(s))
	if err != nil || n < 0 {
		return 0, 0, fmt.Errorf(`%q is no number; write it like "500" or "25%%"`, s)
	}
	return n, 0, nil
}

func parsePercent(s string) (percent float64, ok bool, err error) {
	number, ok := strings.CutSuffix(strings.TrimSpace(s), "%")
	if !ok {
		return 0, false, nil
	}
	percent, err = strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || !(percent > 0 && percent <= 100) {
		return 0, true, fmt.Errorf(`%q is no part of 100; write it like "80%%"`, s)
	}
	return percent, true, nil
}
