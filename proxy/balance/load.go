package balance

// overprovisioning is how far a priority, or a locality, may lose hosts before it is given less, in percent: with 140,
// what is left of 72 % of the hosts still carries the whole load (Envoy's overprovisioning_factor).
const overprovisioning = 140

// level is how much of a priority is there.
type level struct{ healthy, total int }

// available is how much of the load the priority can carry, in percent.
func (l level) available() int {
	if l.total == 0 {
		return 0
	}
	return min(100, overprovisioning*l.healthy/l.total)
}

// assignment is what the priorities get.
type assignment struct {
	loads     []int // percent; they sum up to 100, or are all 0 where nobody is there
	panicking []bool
}

// assign gives the load to the first priority as far as it is available, and what is left to the next. Where all
// together cannot carry it, each gets its part, and those with less than so many percent of healthy hosts panic: all
// their hosts are used. Where all panic, each gets its part by the number of its hosts (Envoy's rules).
func assign(levels []level, panicBelow int) assignment {
	a := assignment{loads: make([]int, len(levels)), panicking: make([]bool, len(levels))}
	parts := make([]int, len(levels))
	whole, hosts := 0, 0
	for i, l := range levels {
		parts[i] = l.available()
		whole += parts[i]
		hosts += l.total
	}
	if panicBelow > 0 && whole < 100 && hosts > 0 {
		all := true
		for i, l := range levels {
			a.panicking[i] = l.total == 0 || 100*l.healthy < panicBelow*l.total
			all = all && a.panicking[i]
		}
		if all {
			for i, l := range levels {
				parts[i] = l.total
			}
			whole = hosts
			spread(a.loads, parts, whole)
			return a
		}
	}
	spread(a.loads, parts, min(whole, 100))
	return a
}

// spread gives 100 percent to the levels by their parts of a whole, in order; what rounding leaves goes to the first that
// has any. Of a whole of 0 none gets anything.
func spread(loads, parts []int, whole int) {
	if whole == 0 {
		return
	}
	left, first := 100, -1
	for i, n := range parts {
		if n > 0 && first < 0 {
			first = i
		}
		loads[i] = min(left, 100*n/whole)
		left -= loads[i]
	}
	loads[first] += left
}
