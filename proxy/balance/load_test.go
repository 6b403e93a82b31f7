package balance

import (
	"math"
	"slices"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// TestAssign holds the tables of Envoy's documentation on priorities and panic thresholds.
func TestAssign(t *testing.T) {
	f := func(panics int, percent []int, loads ...int) {
		t.Helper()
		var levels []level
		for _, p := range percent {
			levels = append(levels, level{p, 100})
		}
		if a := assign(levels, panics); !slices.Equal(a.loads, loads) {
			t.Errorf("healthy %v %%, panic below %d %%: %v, want %v", percent, panics, a.loads, loads)
		}
	}
	for _, panics := range []int{0, 50} {
		f(panics, []int{100, 100}, 100, 0)
		f(panics, []int{72, 72}, 100, 0)
		f(panics, []int{71, 71}, 99, 1)
		f(panics, []int{71, 100}, 99, 1)
		f(panics, []int{50, 50}, 70, 30)
		f(panics, []int{50, 100}, 70, 30)
		f(panics, []int{25, 100}, 35, 65)
		f(panics, []int{0, 100}, 0, 100)
		f(panics, []int{25, 25}, 50, 50)
		f(panics, []int{100, 0, 0}, 100, 0, 0)
		f(panics, []int{72, 72, 100}, 100, 0, 0)
		f(panics, []int{71, 71, 100}, 99, 1, 0)
		f(panics, []int{50, 50, 100}, 70, 30, 0)
		f(panics, []int{25, 100, 100}, 35, 65, 0)
		f(panics, []int{25, 25, 100}, 35, 35, 30)
	}
	// Beyond capacity, without panic: in proportion, what rounding leaves to the first.
	f(0, []int{25, 25, 20}, 37, 35, 28)
	f(0, []int{0, 0}, 0, 0)
	f(0, []int{0, 10}, 0, 100)
	// Nobody is there: all are used.
	f(50, []int{0, 0}, 50, 50)
	f(1, []int{0, 0}, 50, 50)
}

func TestAssignPanics(t *testing.T) {
	f := func(panics int, levels []level, want ...bool) {
		t.Helper()
		if a := assign(levels, panics); !slices.Equal(a.panicking, want) {
			t.Errorf("%v, panic below %d %%: %v, want %v", levels, panics, a.panicking, want)
		}
	}
	of := func(percent ...int) (all []level) {
		for _, p := range percent {
			all = append(all, level{p, 100})
		}
		return all
	}
	f(50, of(100), false)
	f(50, of(72), false) // carries the whole load
	f(50, of(50), false)
	f(50, of(49), true)
	f(50, of(0), true)
	f(0, of(0), false)
	f(100, of(71), true)
	f(100, of(72), false)
	f(50, of(5, 100), false, false) // the second carries it
	f(50, of(5, 65), true, false)
	f(50, of(25, 25), true, true)
	f(34, []level{{1, 3}}, true) // 33.3 %
	f(33, []level{{1, 3}}, false)

	// Where all panic, the hosts count, whether healthy or not.
	if a := assign([]level{{0, 30}, {1, 10}, {0, 0}}, 50); !slices.Equal(a.loads, []int{75, 25, 0}) {
		t.Errorf("loads in total panic: %v", a.loads)
	}
}

// TestLocalityWeights holds the table of Envoy's documentation: X has weight 1 and is healthy, Y has weight 2.
func TestLocalityWeights(t *testing.T) {
	f := func(healthy int, x, y float64) {
		t.Helper()
		var hosts []*Host
		for i, name := range []string{"x", "y"} {
			for n := range 100 {
				h := &Host{Key: name, Weight: 1, Locality: model.Locality{Zone: name}, Share: uint32(i + 1), Vitals: &Vitals{}}
				h.Down.Store(i == 1 && n >= healthy)
				hosts = append(hosts, h)
			}
		}
		p := pool(t, model.LoadBalancer{}, 0, hosts, nil, nil)
		upTo := p.picture.Load().tiers[0].split.upTo
		got := 100 * float64(upTo[0]) / float64(upTo[1])
		if math.Abs(got-x) > 0.5 || math.Abs(100-got-y) > 0.5 {
			t.Errorf("Y %d %% healthy: X gets %.1f %%, want %v", healthy, got, x)
		}
	}
	f(100, 33, 67)
	f(72, 33, 67)
	f(69, 34, 66) // 1.4 × 69 % of 2 is 1.93; the documentation rounds to 32/68
	f(50, 42, 58)
	f(25, 59, 41)
}
