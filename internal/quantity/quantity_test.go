package quantity_test

import (
	"testing"
	"time"

	"mailstow/internal/quantity"
)

func TestSizesAsPeopleWriteThem(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "17": 17, "17b": 17, "1k": 1024, "25M": 25 << 20, "25MB": 25_000_000, "25 MiB": 25 << 20, "1.5G": 3 << 29, "2TB": 2_000_000_000_000,
	} {
		if got, err := quantity.Size(s); err != nil || got != want {
			t.Errorf("Size(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "M", "-1", "1X", "1e9", "9999999999999999999G", "1,5M"} {
		if got, err := quantity.Size(s); err == nil {
			t.Errorf("Size(%q) = %d, want an error", s, got)
		}
	}
}

func TestAgesAndDays(t *testing.T) {
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]string{
		"36h": "2026-03-30T00:00:00Z", "90d": "2025-12-31T12:00:00Z", "2w": "2026-03-17T12:00:00Z",
		"6mo": "2025-10-01T12:00:00Z", "1Y": "2025-03-31T12:00:00Z", "2024-02-29": "2024-02-29T00:00:00Z",
	} {
		if got, err := quantity.Before(now, s); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("Before(%q) = %v, %v; want %s", s, got, err, want)
		}
	}
	for _, s := range []string{"", "90", "-1d", "2024-13-01", "yesterday", "1m"} {
		if got, err := quantity.Before(now, s); err == nil {
			t.Errorf("Before(%q) = %v, want an error", s, got)
		}
	}
}

func TestLengthsOfTime(t *testing.T) {
	for s, want := range map[string]time.Duration{"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "1d": 24 * time.Hour, "1.5w": 252 * time.Hour, "300ms": 300 * time.Millisecond} {
		if d, err := quantity.Duration(s); err != nil || d != want {
			t.Errorf("%q is %v, %v; want %v", s, d, err, want)
		}
	}
	for _, s := range []string{"", "5", "0s", "-1d", "0d", "d", "soon", "NaNd", "1e9d", "Infw", "20000w", "1e-20d"} {
		if d, err := quantity.Duration(s); err == nil {
			t.Errorf("%q is %v, want an error", s, d)
		}
	}
}

func TestPartsAndAmounts(t *testing.T) {
	for s, want := range map[string]float64{"80%": 80, " 0.5 %": 0.5, "100%": 100} {
		if octets, got, err := quantity.SizeOrPercent(s); err != nil || got != want || octets != 0 {
			t.Errorf("SizeOrPercent(%q) = %d, %v, %v", s, octets, got, err)
		}
		if n, got, err := quantity.CountOrPercent(s); err != nil || got != want || n != 0 {
			t.Errorf("CountOrPercent(%q) = %d, %v, %v", s, n, got, err)
		}
	}
	if octets, percent, err := quantity.SizeOrPercent("5G"); err != nil || octets != 5<<30 || percent != 0 {
		t.Errorf("%d, %v, %v", octets, percent, err)
	}
	if n, percent, err := quantity.CountOrPercent("500"); err != nil || n != 500 || percent != 0 {
		t.Errorf("%d, %v, %v", n, percent, err)
	}
	for _, s := range []string{"", "%", "0%", "101%", "-5%", "NaN%", "x", "0"} {
		if _, _, err := quantity.SizeOrPercent(s); err == nil {
			t.Errorf("SizeOrPercent(%q) is no error", s)
		}
	}
	for _, s := range []string{"", "%", "0%", "101%", "-5", "1.5", "10k"} {
		if _, _, err := quantity.CountOrPercent(s); err == nil {
			t.Errorf("CountOrPercent(%q) is no error", s)
		}
	}
}
