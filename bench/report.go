//go:build linux

package main

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"time"

	"github.com/outrider-mesh/outrider/bench/machine"
)

// Goals that outrider-proxy is held to, outbound, with everything on.
const (
	goalNginx   = 1.3       // times nginx's CPU per request, at 16 and 64 connections
	goalMesh    = 0.55      // times the mesh-like Envoy's
	goalIdle    = 16 << 20  // bytes resident after the start
	goalPerConn = 10 * 1000 // bytes for each idle connection
)

// bases are the proxies that the ratios compare with.
var bases = []string{nginxName, haproxyName, meshName}

// report writes the whole run as Markdown.
func (b *bench) report() string {
	var w strings.Builder
	b.writeSetting(&w)
	b.writeSummary(&w)
	b.writeGoals(&w)
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
		if p.failure != nil {
			fmt.Fprintf(w, "- **%s failed** and is left out from there on: %v\n", p.name, p.failure)
		}
	}
	w.WriteString("\n")
}

// writeSummary puts the main number of all cases side by side.
func (b *bench) writeSummary(w *strings.Builder) {
	w.WriteString("### CPU per request (microseconds)\n\n| |")
	var cases []scenario
	for _, c := range allCases() {
		if len(b.resultsOf(c.name)) > 0 {
			cases = append(cases, c)
			fmt.Fprintf(w, " %s |", c.name)
		}
	}
	w.WriteString("\n|---|" + strings.Repeat("---:|", len(cases)) + "\n")
	for _, p := range b.present() {
		fmt.Fprintf(w, "| %s |", p.name)
		for _, c := range cases {
			cpu := math.NaN()
			if r := b.result(p.name, c.name); r != nil {
				cpu = median(r.closed.cpu.counted())
			}
			fmt.Fprintf(w, " %s |", number(cpu, 1))
		}
		w.WriteString("\n")
	}
	w.WriteString("\n")
}

// writeCase prints everything about one case.
func (b *bench) writeCase(w *strings.Builder, c scenario, all []*result) {
	fmt.Fprintf(w, "### %s, %d connections\n\n", c.title, c.conns)
	w.WriteString("| | CPU µs/request | spread | in kernel |")
	for _, base := range bases {
		fmt.Fprintf(w, " × %s |", base)
	}
	w.WriteString(" requests/s | CPU used | rounds |")
	paced := all[0].rate > 0
	if paced {
		fmt.Fprintf(w, " p50 µs | p99 µs | CPU µs/request at %.0f/s |", all[0].rate)
	}
	w.WriteString("\n|---|" + strings.Repeat("---:|", 6+len(bases)))
	if paced {
		w.WriteString("---:|---:|---:|")
	}
	w.WriteString("\n")
	for _, r := range all {
		b.writeRow(w, r, paced)
	}
	w.WriteString("\n")
	for _, r := range all {
		if r.failed > 0 {
			fmt.Fprintf(w, "**%s failed %d requests**, the first: %v\n\n", r.peer.name, r.failed, r.first)
		}
	}
	if anyDisturbed(all) {
		w.WriteString("\\* Fewer than half of the rounds were undisturbed: this line takes all rounds.\n\n")
	}
}

func (b *bench) writeRow(w *strings.Builder, r *result, paced bool) {
	mark := ""
	if r.closed.disturbed || r.paced.disturbed {
		mark = "\\*"
	}
	cpu := r.closed.cpu.counted()
	fmt.Fprintf(w, "| %s%s | %s | %s | %s |", r.peer.name, mark, number(median(cpu), 1), percent(spread(cpu)), percent(median(r.closed.kernel.counted())))
	for _, base := range bases {
		fmt.Fprintf(w, " %s |", b.against(r, base))
	}
	fmt.Fprintf(w, " %s | %s | %d |", number(median(r.closed.perSec.counted()), 0), percent(median(r.closed.busy.counted())), len(cpu))
	if paced {
		fmt.Fprintf(w, " %s | %s | %s |", number(median(r.paced.p50.counted()), 0), number(median(r.paced.p99.counted()), 0),
			number(median(r.paced.cpu.counted()), 1))
	}
	w.WriteString("\n")
}

// against writes r's CPU time over that of another proxy in the same case.
func (b *bench) against(r *result, base string) string {
	other := b.result(base, r.c.name)
	if other == nil {
		return "–"
	}
	return number(ratio(r.closed.cpu, other.closed.cpu), 2)
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
	fmt.Fprintf(w, "### Memory\n\n| | resident at start, MiB | proportional (PSS), MiB | bytes per idle connection (%d) | resident after all rounds, MiB |\n|---|---:|---:|---:|---:|\n", b.o.idle)
	mib := func(bytes int64) string {
		if bytes == 0 {
			return "–"
		}
		return number(float64(bytes)/(1<<20), 1)
	}
	for _, m := range b.memory {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", m.peer.name, mib(m.start.RSS), mib(m.start.PSS), number(m.perConnection(), 0), mib(m.after.RSS))
	}
	w.WriteString("\n")
}

// writeGoals holds outrider-proxy to its goals, as far as they were measured.
func (b *bench) writeGoals(w *strings.Builder) {
	var rows []string
	row := func(goal, measured string, met bool) {
		rows = append(rows, fmt.Sprintf("| %s | %s | %s |\n", goal, measured, map[bool]string{true: "yes", false: "**no**"}[met]))
	}
	for _, r := range b.results {
		if r.peer.name != outboundName || r.c.conns > 64 {
			continue
		}
		for _, g := range []struct {
			base string
			most float64
		}{{nginxName, goalNginx}, {meshName, goalMesh}} {
			if other := b.result(g.base, r.c.name); other != nil {
				v := ratio(r.closed.cpu, other.closed.cpu)
				row(fmt.Sprintf("%s: CPU per request ≤ %.2f × %s", r.c.name, g.most, g.base), number(v, 2), v <= g.most)
			}
		}
	}
	for _, m := range b.memory {
		if m.peer.name == outboundName {
			row("≤ 16 MiB resident at start", number(float64(m.start.RSS)/(1<<20), 1)+" MiB", m.start.RSS <= goalIdle)
			row("≤ 10 KB per idle connection", number(m.perConnection(), 0)+" bytes", m.perConnection() <= goalPerConn)
		}
	}
	if len(rows) > 0 {
		w.WriteString("### Goals of outrider-out\n\n| goal | measured | met |\n|---|---:|---|\n" + strings.Join(rows, "") + "\n")
	}
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
		if r.peer.name == name && r.c.name == c {
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
