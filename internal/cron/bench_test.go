package cron

import (
	"testing"
	"time"

	"github.com/adhocore/gronx"
)

// benchRows are measured against other engines too, in bench/schedule.
func benchRows() []struct{ expr, zone string } {
	return []struct{ expr, zone string }{
		{"* * * * *", "UTC"},
		{"* * * * *", "America/New_York"},
		{"*/5 9-17 * * MON-FRI", "UTC"},
		{"*/5 9-17 * * MON-FRI", "America/New_York"},
		{"30 2 * * *", "America/New_York"},
		{"0 0 29 2 *", "UTC"},
		{"0 0 29 2 *", "America/New_York"},
		{"0 0 1 1 *", "UTC"},
		{"0 12 1,15 * MON", "America/New_York"},
		{"*/10 * * * * *", "UTC"},
		{"30 15 4 * * *", "America/New_York"},
		{"0 0 L * FRI#2", "America/New_York"},
	}
}

// BenchmarkNext walks from tick to tick, beginning again after 2036.
func BenchmarkNext(b *testing.B) {
	for _, row := range benchRows() {
		b.Run(row.expr+" "+row.zone, func(b *testing.B) {
			s := mustParse(b, row.expr, mustZone(b, row.zone))
			walk(b, s.loc, s.Next)
		})
	}
}

func BenchmarkGronx(b *testing.B) {
	for _, row := range benchRows() {
		b.Run(row.expr+" "+row.zone, func(b *testing.B) {
			walk(b, mustZone(b, row.zone), func(t time.Time) time.Time {
				next, err := gronx.NextTickAfter(row.expr, t, false)
				if err != nil {
					b.Fatal(err)
				}
				return next
			})
		})
	}
}

func walk(b *testing.B, loc *time.Location, next func(time.Time) time.Time) {
	b.Helper()
	start := time.Date(2026, 11, 23, 12, 0, 0, 0, loc)
	end := start.AddDate(10, 0, 0)
	b.ReportAllocs()
	at := start
	for b.Loop() {
		if at = next(at); at.After(end) {
			at = start
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for _, expr := range []string{"* * * * *", "*/5 9-17 * * MON-FRI", "0 12 1,15 * MON", "0 0 L * FRI#2"} {
		b.Run(expr, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(expr, time.UTC); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
