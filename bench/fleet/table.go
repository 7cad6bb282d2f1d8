package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A sample is what one tool took, once.
type sample struct {
	cpu    time.Duration // of the client and its children
	wall   time.Duration
	server time.Duration // CPU of the nodes; 0: not known
	peak   int64         // bytes of memory of the client; 0: not known
}

// A table collects samples of tools by repetition.
type table struct {
	options options
	title   string
	samples map[string]map[int]sample
}

func newTable(o options, title string) *table {
	return &table{o, title, map[string]map[int]sample{}}
}

func (t *table) add(rep int, tool string, s sample) {
	if t.samples[tool] == nil {
		t.samples[tool] = map[int]sample{}
	}
	t.samples[tool][rep] = s
}

// print writes medians. A ratio is the median of the ratios to the bare loop
// within each repetition.
func (t *table) print(w io.Writer, tools []tool) {
	fmt.Fprintf(w, "\n%d nodes, %s\n\n", t.options.nodes, t.title)
	fmt.Fprintln(w, "| tool | client CPU s | ms a node | x bare | wall s | x bare | nodes' CPU s | x bare | peak MB | reps |")
	fmt.Fprintln(w, "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
	for _, tool := range tools {
		cpu := t.median(tool.name, func(s sample) float64 { return s.cpu.Seconds() })
		fmt.Fprintf(w, "| %s | %.3f | %.2f | %s | %.2f | %s | %s | %s | %s | %d |\n", tool.name,
			cpu, cpu*1000/float64(t.options.nodes),
			t.ratio(tool.name, func(s sample) float64 { return s.cpu.Seconds() }),
			t.median(tool.name, func(s sample) float64 { return s.wall.Seconds() }),
			t.ratio(tool.name, func(s sample) float64 { return s.wall.Seconds() }),
			known("%.2f", t.median(tool.name, func(s sample) float64 { return s.server.Seconds() })),
			t.ratio(tool.name, func(s sample) float64 { return s.server.Seconds() }),
			known("%.0f", t.median(tool.name, func(s sample) float64 { return float64(s.peak) / (1 << 20) })),
			len(t.samples[tool.name]))
	}
}

func known(format string, v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf(format, v)
}

func (t *table) median(tool string, of func(sample) float64) float64 {
	var all []float64
	for _, s := range t.samples[tool] {
		all = append(all, of(s))
	}
	return median(all)
}

func (t *table) ratio(tool string, of func(sample) float64) string {
	var all []float64
	for rep, s := range t.samples[tool] {
		if base := of(t.samples[bare][rep]); base > 0 {
			all = append(all, of(s)/base)
		}
	}
	return known("%.2f", median(all))
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// describe says what was measured, and on what.
func describe(w io.Writer, o options, missing []string) {
	load, _ := os.ReadFile("/proc/loadavg") // decoration: without it the line is shorter
	fmt.Fprintf(w, "%d nodes on this machine, %d at once; %d CPUs (%s), load %s before; %s; %s.\n", o.nodes, o.fanout,
		runtime.NumCPU(), cpuModel(), strings.Join(strings.Fields(string(load))[:3], " "), runtime.Version(), sshVersion())
	if len(missing) > 0 {
		fmt.Fprintf(w, "Not measured, as not installed: %s.\n", strings.Join(missing, ", "))
	}
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // see above
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func sshVersion() string {
	out, _ := exec.Command("ssh", "-V").CombinedOutput() // see above
	version, _, _ := strings.Cut(string(out), ",")
	return version
}
