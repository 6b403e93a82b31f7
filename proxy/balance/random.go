package balance

// random picks independently of everything, by weight where weights differ.
type random struct{ split *Split }

// uniform is random where all hosts weigh the same.
type uniform int

func newRandom(hosts []*Host) Balancer {
	if len(hosts) == 0 {
		return nobody{}
	}
	if sameWeights(hosts) {
		return uniform(len(hosts))
	}
	return random{splitOf(hosts)}
}

func splitOf(hosts []*Host) *Split {
	weights := make([]uint32, len(hosts))
	for i, h := range hosts {
		weights[i] = uint32(h.weight())
	}
	s, err := NewSplit(weights)
	if err != nil {
		panic("balance: there are hosts: " + err.Error())
	}
	return s
}

func (b random) Pick(_ Key, r *Rand) int { return b.split.Pick(r) }

func (b uniform) Pick(_ Key, r *Rand) int { return r.N(int(b)) }
