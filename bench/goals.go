//go:build linux

package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// goal is what one of ours is held to in some cases, with everything on: CPU time at most so many times that of the
// best of others.
type goal struct {
	name  string
	cases []string
	most  float64
	of    []string
}

var (
	http1Cases = []string{"get-300B/16", "get-300B/64", "get-300B/256"}
	h2cCases   = []string{"h2c-get-300B/4x32", "h2c-get-300B/1x100", "h2c-get-300B/16x8"}
	unaryCases = []string{"grpc-unary/4x32"}

	guardedCases = slices.Concat(http1Cases, h2cCases, unaryCases)
)

var goals = []goal{
	{outboundName, http1Cases, 1.15, []string{nginxName, haproxyName}},
	{outboundName, http1Cases, 0.45, []string{meshName}},
	{outboundName, h2cCases, 1.0, []string{haproxyName}},
	{outboundName, h2cCases, 0.3, []string{meshName}},
	{outboundName, unaryCases, 0.4, []string{meshName}},
	{outboundName, []string{"tcp-bytes/4"}, 1 / 0.9, []string{haproxyName}}, // bytes per CPU second within 10 %
	{guardedName, guardedCases, 1.05, []string{outboundName}},
}

// Goals of memory, in bytes: resident after the start, and for each idle connection by what clients speak.
const goalIdle = 16 << 20

var goalPerConn = map[speech]float64{http1: 10_000, http2: 20_000}

// verdict is one row of the table of goals.
type verdict struct {
	goal, measured string
	value, most    float64
}

// result says how the goal is met, or missed by how much.
func (v *verdict) result() string {
	switch {
	case math.IsNaN(v.value):
		return "not measured"
	case v.value <= v.most:
		return "met"
	case v.most <= 0:
		return "**missed**"
	}
	return fmt.Sprintf("**missed by %.0f %%**", math.Ceil((v.value/v.most-1)*100))
}

// writeGoals holds outrider-out to its goals, as far as the run has a part in them.
func (b *bench) writeGoals(w *strings.Builder) {
	all := append(append(b.cpuVerdicts(), b.latencyVerdicts()...), b.memoryVerdicts()...)
	if len(all) == 0 {
		return
	}
	w.WriteString("### Goals of outrider-out\n\n| goal | measured | |\n|---|---:|---|\n")
	for _, v := range all {
		fmt.Fprintf(w, "| %s | %s | %s |\n", v.goal, v.measured, v.result())
	}
	w.WriteString("\n")
}

func (b *bench) cpuVerdicts() []verdict {
	var all []verdict
	for _, g := range goals {
		for _, c := range g.cases {
			var there []string
			for _, name := range g.of {
				if b.result(name, c) != nil {
					there = append(there, name)
				}
			}
			if len(there) == 0 || !b.took(g.name, c) {
				continue
			}
			v := verdict{most: g.most, value: math.NaN()}
			if r := b.result(g.name, c); r != nil {
				for _, name := range there { // the better one is that against which ours looks worse
					v.value = worse(v.value, b.against(r, name))
				}
			}
			of := strings.Join(there, " and ")
			if len(there) > 1 {
				of = "the better of " + of
			}
			who := ""
			if g.name != outboundName {
				who = " of " + g.name
			}
			v.goal, v.measured = fmt.Sprintf("%s: CPU%s ≤ %.2f × %s", c, who, g.most, of), number(v.value, 2)
			all = append(all, v)
		}
	}
	return all
}

// worse is the greater of two ratios, of which one may not have been measured.
func worse(a, b float64) float64 {
	if math.IsNaN(a) || b > a {
		return b
	}
	return a
}

// took says whether an entrant was to be measured in a case that ran.
func (b *bench) took(name, c string) bool {
	of := b.resultsOf(c)
	if len(of) == 0 {
		return false
	}
	for _, e := range b.entrants {
		if e.name == name && e.lane.name == of[0].c.lane.name {
			return true
		}
	}
	return false
}

// latencyVerdicts compare what the proxies add to p99 at half load.
func (b *bench) latencyVerdicts() []verdict {
	var all []verdict
	for _, c := range allCases() {
		other := b.result(meshName, c.name)
		if !c.paced || other == nil || !(other.rate > 0) || !b.took(outboundName, c.name) {
			continue
		}
		v := verdict{value: math.NaN(), most: b.addedP99(other)}
		if r := b.result(outboundName, c.name); r != nil {
			v.value = b.addedP99(r)
		}
		v.goal = fmt.Sprintf("%s: added p99 at %.0f/s ≤ %s's, %s µs", c.name, other.rate, meshName, number(v.most, 0))
		v.measured = number(v.value, 0) + " µs"
		all = append(all, v)
	}
	return all
}

func (b *bench) memoryVerdicts() []verdict {
	var all []verdict
	for _, m := range b.memory {
		if m.name != outboundName {
			continue
		}
		if m.lane.in == http1 {
			mib := float64(m.atStart.RSS) / (1 << 20)
			all = append(all, verdict{goal: "≤ 16 MiB resident at start", measured: number(mib, 1) + " MiB", value: float64(m.atStart.RSS), most: goalIdle})
		}
		if most, ok := goalPerConn[m.lane.in]; ok {
			v := m.perConnection()
			all = append(all, verdict{
				goal:     fmt.Sprintf("≤ %.0f KB per idle connection of %s", most/1000, m.lane.in),
				measured: number(v, 0) + " bytes", value: v, most: most,
			})
		}
	}
	return all
}
