//go:build linux

package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Two builds of one proxy that differ by a few percent are told apart by many short rounds, each a pair that follow one
// another within half a second: what the machine does in the meantime is more than they differ by, in a whole round, but
// not in the median of many such pairs.
const (
	twinLength = 250 * time.Millisecond
	twinWarm   = 60 * time.Millisecond
)

// measureTwins compares outrider-guarded with outrider-out where there is a goal for it and both are there.
func (b *bench) measureTwins(c scenario, all []*result) error {
	twins := slices.DeleteFunc(slices.Clone(all), func(r *result) bool {
		return r.failure != nil || r.name != outboundName && r.name != guardedName
	})
	if b.o.twinRounds == 0 || len(twins) < 2 || !slices.Contains(guardedCases, c.name) {
		return nil
	}
	return b.interleave(c.name+", guarded or not", b.o.twinRounds, twins, func(r *result, _ int) (*rounds, sample, error) {
		s, err := b.saturate(r, twinWarm, twinLength)
		return &r.twins, s, err
	})
}

// writeTwins prints what they differ by.
func (b *bench) writeTwins(w *strings.Builder) {
	var rows []string
	for _, name := range guardedCases {
		out, guarded := b.result(outboundName, name), b.result(guardedName, name)
		if out == nil || guarded == nil {
			continue
		}
		pairs := ratios(guarded.twins.cpu, out.twins.cpu)
		if len(pairs) == 0 {
			continue
		}
		least, most := interval(pairs)
		cpu := func(r *result) string { return number(median(r.twins.cpu.counted()), r.c.decimals()) }
		rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s | %s to %s | %d |\n", name, cpu(out), cpu(guarded), number(median(pairs), 3), number(least, 3), number(most, 3), len(pairs)))
	}
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(w, "### What protection costs: outrider-guarded beside outrider-out, rounds of %s\n\n", twinLength)
	fmt.Fprintf(w, "| | %s, CPU µs | %s, CPU µs | ratio | 95 %% sure | pairs of rounds |\n|---|---:|---:|---:|---:|---:|\n%s\n", outboundName, guardedName, strings.Join(rows, ""))
}

// interval returns between which two of the values the median of what they are drawn from lies, with 95 % certainty: by
// their ranks, whatever their distribution (binomial, normal approximation). NaN for fewer than six.
func interval(values []float64) (least, most float64) {
	n := len(values)
	if n < 6 {
		return math.NaN(), math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	half := 0.98 * math.Sqrt(float64(n))
	low := max(int(math.Floor(float64(n)/2-half)), 0)
	return v[low], v[n-1-low]
}
