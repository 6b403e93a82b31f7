//go:build linux

package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Sprints are short rounds of proxies that may differ by a few percent, one after the other within a second, many times. What
// the machine does in the meantime is more than they differ by in any one of them, and in a whole round, too, but not in
// the median of many.
const (
	sprintLength = 250 * time.Millisecond
	sprintWarm   = 60 * time.Millisecond
)

// sprinters are who is measured so in a case: both sides of the goals that have them near one another.
func sprinters(c string) (names []string) {
	for _, g := range goals {
		if g.near() && slices.Contains(g.cases, c) {
			names = append(append(names, g.name), g.of...)
		}
	}
	return names
}

// near says whether a goal allows about as much as others take.
func (g *goal) near() bool { return g.most >= 1 }

func (b *bench) measureSprints(c scenario, all []*result) error {
	names := sprinters(c.name)
	near := slices.DeleteFunc(slices.Clone(all), func(r *result) bool {
		return r.failure != nil || !slices.Contains(names, r.name)
	})
	if b.o.sprints == 0 || len(near) < 2 {
		return nil
	}
	return b.interleave(c.name+", sprints", b.o.sprints, near, func(r *result, _ int) (*rounds, sample, error) {
		s, err := b.saturate(r, sprintWarm, sprintLength)
		return &r.sprints, s, err
	})
}

// writeSprints prints what they say, and how sure that is.
func (b *bench) writeSprints(w *strings.Builder) {
	rows := ""
	for _, c := range allCases() {
		for _, g := range goals {
			if g.near() && slices.Contains(g.cases, c.name) {
				for _, base := range g.of {
					rows += sprintRow(b.result(g.name, c.name), b.result(base, c.name))
				}
			}
		}
	}
	if rows != "" {
		fmt.Fprintf(w, "### Sprints: CPU µs in rounds of %s\n\n", sprintLength)
		fmt.Fprintf(w, "| | | | beside | | ratio | 95 %% sure | pairs of rounds |\n|---|---|---:|---|---:|---:|---:|---:|\n%s\n", rows)
	}
}

func sprintRow(r, base *result) string {
	if r == nil || base == nil {
		return ""
	}
	pairs := ratios(r.sprints.cpu, base.sprints.cpu)
	if len(pairs) == 0 {
		return ""
	}
	cpu := func(r *result) string { return number(median(r.sprints.cpu.counted()), r.c.decimals()) }
	least, most := interval(pairs)
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s to %s | %d |\n", r.c.name, r.name, cpu(r), base.name, cpu(base),
		number(median(pairs), 3), number(least, 3), number(most, 3), len(pairs))
}

// interval returns between which two of the values the median of what they are drawn from lies, with 95 % certainty: by
// their ranks, whatever their distribution (binomial, normal approximation). NaN for fewer than six.
func interval(values []float64) (least, most float64) {
	n := len(values)
	if n < 6 {
		return math.NaN(), math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	low := max(int(math.Floor(float64(n)/2-0.98*math.Sqrt(float64(n)))), 0)
	return v[low], v[n-1-low]
}
