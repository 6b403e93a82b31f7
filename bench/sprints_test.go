//go:build linux

package main

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

// The interval's ranks are those of the sign test's tables for 95 %.
func TestInterval(t *testing.T) {
	f := func(n int, low, high float64) {
		t.Helper()
		var v []float64
		for i := n; i > 0; i-- {
			v = append(v, float64(i))
		}
		if least, most := interval(v); least != low || most != high {
			t.Errorf("of 1 to %d: %v to %v, want %v to %v", n, least, most, low, high)
		}
	}
	f(6, 1, 6)
	f(20, 6, 15)
	f(60, 23, 38)
	f(100, 41, 60)
	if least, most := interval([]float64{1, 2, 3}); !math.IsNaN(least) || !math.IsNaN(most) {
		t.Errorf("of three: %v to %v", least, most)
	}
}

// Short rounds decide about what differs by little, and the report shows them.
func TestSprints(t *testing.T) {
	b := testBench(t.Context(), t, "-peers", "^outrider-(out|guarded)$", "-cases", "^(h2c-get-300B/4x32|get-16K/64)$", "-idle", "0", "-latency-rounds", "0", "-sprints", "2")
	err := b.measure()
	if e := b.close(); e != nil {
		t.Error(e)
	}
	if err != nil {
		t.Fatal(err)
	}
	wantAlone(t)
	for _, r := range b.results {
		if errors.Is(r.failure, errNothing) {
			t.Skipf("this machine has too much else to do: %s: %v", r.name, r.failure)
		} else if r.failure != nil {
			t.Fatalf("%s: %v", r.name, r.failure)
		}
		want := 0
		if r.c.name == h2cCases[0] {
			want = 2
		}
		if n := len(r.sprints.cpu); n < want || want == 0 && n > 0 {
			t.Errorf("%s, %s: %d short rounds, want %d", r.name, r.c.name, n, want)
		}
	}
	guarded, out := b.result(guardedName, h2cCases[0]), b.result(outboundName, h2cCases[0])
	guarded.sprints.cpu, out.sprints.cpu = series{2, 4, 6, 8, 10, 12}, series{1, 2, 3, 4, 5, 6}
	if v := b.against(guarded, outboundName); v != 2 {
		t.Errorf("%v times, want 2 as the short rounds say", v)
	}
	text := b.report()
	for _, want := range []string{
		"| h2c-get-300B/4x32 | outrider-guarded | 7.00 | outrider-out | 3.50 | 2.000 | 2.000 to 2.000 | 6 |",
		"| h2c-get-300B/4x32: CPU of outrider-guarded ≤ 1.05 × outrider-out | 2.00 | **missed by 91 %** |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
}

// Who is near whom follows from the goals.
func TestSprinters(t *testing.T) {
	f := func(c string, want ...string) {
		t.Helper()
		got := sprinters(c)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(slices.Compact(got), want) {
			t.Errorf("%s: %v, want %v", c, got, want)
		}
	}
	f("get-300B/16", outboundName, guardedName, nginxName, haproxyName)
	f("h2c-get-300B/1x100", outboundName, guardedName, haproxyName)
	f("grpc-unary/4x32", outboundName, guardedName)
	f("tcp-bytes/4", outboundName, haproxyName)
	f("get-16K/64")
}
