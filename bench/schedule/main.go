// Command schedule measures Loom's schedule engine side by side with the
// engines that other schedulers use: gronx, robfig/cron (Kubernetes, Argo) and
// cronexpr (Nomad, supercronic).
//
// It prints a Markdown table of nanoseconds and allocations for finding one
// tick, walking from each tick to the next for ten years, and for reading an
// expression. The engines' turns alternate and the best of several counts, so
// that a busy machine disturbs the ratios little. gronx has no compiled form
// and reads the text for each tick.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/adhocore/gronx"
	"github.com/hashicorp/cronexpr"
	robfig "github.com/robfig/cron/v3"

	"github.com/dustinlacewell/loom/internal/cron"
)

// A next finds the tick after a time; an engine makes one from an expression.
type (
	next   func(time.Time) time.Time
	engine struct {
		name  string
		parse func(expr string, loc *time.Location) (next, error)
	}
)

func engines() []engine {
	return []engine{
		{"Loom", func(expr string, loc *time.Location) (next, error) {
			s, err := cron.Parse(expr, loc)
			if err != nil {
				return nil, err
			}
			return s.Next, nil
		}},
		{"robfig/cron 3.0.1", func(expr string, loc *time.Location) (next, error) {
			s, err := robfig.NewParser(robfig.SecondOptional | robfig.Minute | robfig.Hour | robfig.Dom | robfig.Month | robfig.Dow).Parse(expr)
			if err != nil {
				return nil, err
			}
			s.(*robfig.SpecSchedule).Location = loc
			return s.Next, nil
		}},
		{"cronexpr 1.1.3", func(expr string, _ *time.Location) (next, error) {
			if len(strings.Fields(expr)) == 6 {
				expr += " *" // it takes six fields for five and a year
			}
			s, err := cronexpr.Parse(expr)
			if err != nil {
				return nil, err
			}
			return s.Next, nil
		}},
		{"gronx 1.20.4", func(expr string, _ *time.Location) (next, error) {
			if !gronx.IsValid(expr) {
				return nil, fmt.Errorf("gronx: %q is not valid", expr)
			}
			return func(t time.Time) time.Time {
				tick, err := gronx.NextTickAfter(expr, t, false)
				if err != nil {
					return time.Time{}
				}
				return tick
			}, nil
		}},
	}
}

type row struct{ expr, zone string }

func rows() []row {
	return []row{
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
	}
}

func main() {
	log.SetFlags(0)
	testing.Init()
	turns := flag.Int("turns", 5, "measure each cell so often and keep the best")
	if err := flag.Set("test.benchtime", "100ms"); err != nil {
		log.Fatal(err)
	}
	flag.Parse()
	if err := run(os.Stdout, *turns); err != nil {
		log.Fatal(err)
	}
}

func run(w io.Writer, turns int) error {
	all := engines()
	var table, rule strings.Builder
	table.WriteString("Nanoseconds / allocations for the next tick; × is how many times Loom's.\n\n| expression | zone |")
	rule.WriteString("|---|---|")
	for i, e := range all {
		fmt.Fprintf(&table, " %s |", e.name)
		rule.WriteString("---:|")
		if i > 0 {
			table.WriteString(" × |")
			rule.WriteString("---:|")
		}
	}
	fmt.Fprintf(&table, "\n%s\n", rule.String())
	for _, r := range rows() {
		loc, err := time.LoadLocation(r.zone)
		if err != nil {
			return err
		}
		cells, err := measure(all, turns, func(e engine) (func(*testing.B), error) {
			next, err := e.parse(r.expr, loc)
			return func(b *testing.B) { b.Helper(); walk(b, loc, next) }, err
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(&table, "| `%s` | %s |%s\n", r.expr, r.zone, cells)
	}
	const expr = "*/5 9-17 * * MON-FRI"
	cells, err := measure(all, turns, func(e engine) (func(*testing.B), error) {
		return func(b *testing.B) {
			b.Helper()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.parse(expr, time.UTC); err != nil {
					b.Fatal(err)
				}
			}
		}, nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(&table, "| reading `%s` | |%s\n", expr, cells)
	_, err = io.WriteString(w, table.String())
	return err
}

func walk(b *testing.B, loc *time.Location, next next) {
	b.Helper()
	start := time.Date(2026, 11, 23, 12, 0, 0, 0, loc)
	end := start.AddDate(10, 0, 0)
	b.ReportAllocs()
	at := start
	for b.Loop() {
		at = next(at)
		if at.IsZero() || at.After(end) {
			at = start
		}
	}
}

func measure(all []engine, turns int, bench func(engine) (func(*testing.B), error)) (string, error) {
	best := make([]float64, len(all))
	allocs := make([]int64, len(all))
	for turn := range turns {
		for i, e := range all {
			f, err := bench(e)
			if err != nil {
				return "", fmt.Errorf("%s: %w", e.name, err)
			}
			result := testing.Benchmark(f)
			if result.N == 0 {
				return "", fmt.Errorf("%s: the measurement failed", e.name)
			}
			ns := float64(result.T.Nanoseconds()) / float64(result.N)
			if turn == 0 {
				best[i] = math.Inf(1)
			}
			best[i] = min(best[i], ns)
			allocs[i] = result.AllocsPerOp()
		}
	}
	var cells strings.Builder
	for i := range all {
		fmt.Fprintf(&cells, " %.0f / %d |", best[i], allocs[i])
		if i > 0 {
			fmt.Fprintf(&cells, " %.1f |", best[i]/best[0])
		}
	}
	return cells.String(), nil
}
