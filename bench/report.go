//go:build linux

package main

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/outrider-mesh/outrider/bench/machine"
)

// bases are the proxies that the ratios compare with, where they have a part in the case.
var bases = []string{baseName, nginxName, haproxyName, bareName, meshName, outboundName}

// report writes the whole run as Markdown.
func (b *bench) report() string {
	var w strings.Builder
	b.writeSetting(&w)
	b.writeGoals(&w)
	for _, l := range allLanes() {
		b.writeSummary(&w, l)
	}
	b.writeSprints(&w)
	b.writeMemory(&w)
	for _, c := range allCases() {
		if of := b.resultsOf(c.name); len(of) > 0 {
			b.writeCase(&w, c, of)
		}
	}
	return w.String()
}

func (b *bench) writeSetting(w *strings.Builder) {
	fmt.Fprintf(w, "Machine: %s; %s. %s, %.0f minutes.\n", machine.Describe(), runtime.Version(),
		b.began.UTC().Format("2006-01-02 15:04 MST"), time.Since(b.began).Minutes())
	fmt.Fprintf(w, "Proxy under test on CPU %d, load generator and backend on CPU %d. Rounds of %s after %s of load, interleaved; %d run, %d of them disturbed (other processes or the hypervisor took more than %.0f %% of a CPU).\n\n",
		b.o.proxyCPU, b.o.loadCPU, b.o.length, b.o.warm, b.ran, b.dropped, disturbance*100)
	if 2*b.dropped > b.ran {
		w.WriteString("**The machine was busy with other work for most of the run: do not lean on these numbers.**\n\n")
	}
	for _, p := range b.peers {
		if p.absence == nil {
			fmt.Fprintf(w, "- **%s** %s: %s\n", p.name, p.version, p.about)
		}
	}
	for _, p := range b.peers {
		if p.absence != nil {
			fmt.Fprintf(w, "- **%s** is missing: %v\n", p.name, p.absence)
		}
	}
	for _, e := range b.entrants {
		if e.failure != nil {
			fmt.Fprintf(w, "- **%s failed in %s** and is left out from there on: %s\n", e.name, e.lane.name, firstLine(e.failure.Error()))
		}
	}
	w.WriteString("\n")
}

// writeSummary puts the main number of all cases of a lane side by side.
func (b *bench) writeSummary(w *strings.Builder, l *lane) {
	var cases []scenario
	for _, c := range allCases() {
		if c.lane.name == l.name && len(b.resultsOf(c.name)) > 0 {
			cases = append(cases, c)
		}
	}
	entered := slices.DeleteFunc(slices.Clone(b.entrants), func(e *entrant) bool { return e.lane.name != l.name })
	if len(entered) == 0 {
		return
	}
	fmt.Fprintf(w, "### %s: CPU µs\n\n| |", l.title())
	for _, c := range cases {
		fmt.Fprintf(w, " %s, a %s |", c.name, c.unit)
	}
	w.WriteString("\n|---|" + strings.Repeat("---:|", len(cases)) + "\n")
	for _, e := range entered {
		fmt.Fprintf(w, "| %s |", e.name)
		for _, c := range cases {
			fmt.Fprintf(w, " %s |", b.cell(e, c))
		}
		w.WriteString("\n")
	}
	w.WriteString("\n")
	for _, p := range b.peers {
		if why := p.apart[l.name]; why != "" && p.absence == nil {
			fmt.Fprintf(w, "%s has no row: %s.\n\n", p.name, why)
		}
	}
}

// cell is the main number of an entrant in a case, or why there is none.
func (b *bench) cell(e *entrant, c scenario) string {
	r := b.result(e.name, c.name)
	switch {
	case r != nil && len(r.closed.cpu.counted()) > 0:
		return number(median(r.closed.cpu.counted()), c.decimals())
	case e.failure != nil:
		return "failed"
	}
	return "–"
}

// decimals is how many decimals of a microsecond a case's CPU time is told with.
func (c *scenario) decimals() int {
	switch {
	case c.handshakes || c.lane.TCP():
		return 0
	case c.lane.TakesHTTP2():
		return 2
	}
	return 1
}

// title says what a lane's two sides speak.
func (l *lane) title() string {
	switch {
	case l.in == l.out:
		return string(l.in)
	case l.TLS():
		return "TLS at a gateway"
	}
	return fmt.Sprintf("%s to %s", l.in, l.out)
}

// writeCase prints everything about one case.
func (b *bench) writeCase(w *strings.Builder, c scenario, all []*result) {
	fmt.Fprintf(w, "### %s: %s, %s\n\n", c.name, c.title, c.connections())
	against := slices.DeleteFunc(slices.Clone(bases), func(base string) bool { return b.result(base, c.name) == nil })
	if !c.lane.TCP() {
		against = slices.DeleteFunc(against, func(base string) bool { return base == bareName })
	}
	fmt.Fprintf(w, "| | CPU µs/%s | spread | in kernel |", c.unit)
	for _, base := range against {
		fmt.Fprintf(w, " × %s |", base)
	}
	fmt.Fprintf(w, " %s/s | CPU used | rounds |", plural(c.unit))
	columns := 6 + len(against)
	extra := c.extraColumns(all)
	for _, x := range extra {
		fmt.Fprintf(w, " %s |", x.title)
	}
	w.WriteString("\n|---|" + strings.Repeat("---:|", columns+len(extra)) + "\n")
	for _, r := range all {
		b.writeRow(w, r, against, extra)
	}
	w.WriteString("\n")
	if a := b.alone[c.name]; len(a.cpu) > 0 {
		fmt.Fprintf(w, "Generator and backend alone: %s µs a %s, both together", number(median(a.cpu), 2), c.unit)
		if len(a.p99) > 0 {
			fmt.Fprintf(w, "; p99 at that rate %s µs", number(median(a.p99), 0))
		}
		w.WriteString(".\n\n")
	}
	for _, r := range all {
		if r.failed > 0 {
			fmt.Fprintf(w, "**%s failed %d requests**, the first: %v\n\n", r.name, r.failed, r.first)
		}
	}
	if anyDisturbed(all) {
		w.WriteString("\\* Fewer than half of the rounds were undisturbed: this line takes all rounds.\n\n")
	}
}

func plural(unit string) string {
	if unit == bytes64K.unit {
		return unit
	}
	return unit + "s"
}

// column is one that only some cases have.
type column struct {
	title string
	cell  func(b *bench, r *result) string
}

func (c *scenario) extraColumns(all []*result) []column {
	switch {
	case c.handshakes:
		return []column{{"group", func(_ *bench, r *result) string { return r.group }}}
	case c.lane.TCP():
		return []column{{"GB per CPU second", func(_ *bench, r *result) string {
			return number((1<<20)/1e9*1e6/median(r.closed.cpu.counted()), 2)
		}}}
	case all[0].rate > 0:
		return []column{
			{"p50 µs", func(_ *bench, r *result) string { return number(median(r.paced.p50.counted()), 0) }},
			{"p99 µs", func(_ *bench, r *result) string { return number(median(r.paced.p99.counted()), 0) }},
			{"added p99 µs", func(b *bench, r *result) string { return number(b.addedP99(r), 0) }},
			{fmt.Sprintf("CPU µs/%s at %.0f/s", c.unit, all[0].rate), func(_ *bench, r *result) string {
				return number(median(r.paced.cpu.counted()), c.decimals())
			}},
		}
	}
	return nil
}

// addedP99 is what a proxy adds to the p99 that generator and backend have alone.
func (b *bench) addedP99(r *result) float64 {
	return median(r.paced.p99.counted()) - median(b.alone[r.c.name].p99)
}

func (b *bench) writeRow(w *strings.Builder, r *result, against []string, extra []column) {
	mark := ""
	if r.closed.disturbed || r.paced.disturbed {
		mark = "\\*"
	}
	cpu := r.closed.cpu.counted()
	fmt.Fprintf(w, "| %s%s | %s | %s | %s |", r.name, mark, number(median(cpu), r.c.decimals()), percent(spread(cpu)), percent(median(r.closed.kernel.counted())))
	for _, base := range against {
		fmt.Fprintf(w, " %s |", number(b.against(r, base), 2))
	}
	fmt.Fprintf(w, " %s | %s | %d |", number(median(r.closed.perSec.counted()), 0), percent(median(r.closed.busy.counted())), len(cpu))
	for _, x := range extra {
		fmt.Fprintf(w, " %s |", x.cell(b, r))
	}
	w.WriteString("\n")
}

// against returns r's CPU time over that of another proxy in the same case, by the short rounds of both where there were
// any; NaN where it was not measured.
func (b *bench) against(r *result, base string) float64 {
	other := b.result(base, r.c.name)
	if other == nil {
		return math.NaN()
	}
	if v := ratio(r.sprints.cpu, other.sprints.cpu); !math.IsNaN(v) {
		return v
	}
	return ratio(r.closed.cpu, other.closed.cpu)
}

func anyDisturbed(all []*result) bool {
	for _, r := range all {
		if r.closed.disturbed || r.paced.disturbed {
			return true
		}
	}
	return false
}

func (b *bench) writeMemory(w *strings.Builder) {
	if len(b.memory) == 0 {
		return
	}
	fmt.Fprintf(w, "### Memory\n\n| | idle connections | resident at start, MiB | proportional (PSS), MiB | bytes per idle connection (%d) | resident after all rounds, MiB |\n|---|---|---:|---:|---:|---:|\n", b.o.idle)
	mib := func(bytes int64) string {
		if bytes == 0 {
			return "–"
		}
		return number(float64(bytes)/(1<<20), 1)
	}
	for _, m := range b.memory {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", m.name, m.lane.in, mib(m.atStart.RSS), mib(m.atStart.PSS), number(m.perConnection(), 0), mib(m.after.RSS))
	}
	w.WriteString("\n")
}

func (b *bench) resultsOf(c string) []*result {
	var all []*result
	for _, r := range b.results {
		if r.c.name == c {
			all = append(all, r)
		}
	}
	return all
}

// result returns a proxy's result of a case, or nil.
func (b *bench) result(name, c string) *result {
	for _, r := range b.results {
		if r.name == name && r.c.name == c {
			return r
		}
	}
	return nil
}

// number writes v with the given number of decimals, and a dash for what was not measured.
func number(v float64, decimals int) string {
	if math.IsNaN(v) {
		return "–"
	}
	return fmt.Sprintf("%.*f", decimals, v)
}

func percent(share float64) string {
	if math.IsNaN(share) {
		return "–"
	}
	return fmt.Sprintf("%.0f %%", share*100)
}
