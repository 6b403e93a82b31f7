package balance

import (
	"errors"
	"sort"
)

// Split draws one of several destinations by weight. Draws are independent of each other and unbiased. Safe for
// concurrent use: it never changes.
type Split struct {
	// upTo[i] is the sum of the weights of destinations 0 to i.
	upTo []uint64
	// only is the one destination that can be drawn, or -1 where there are several or none.
	only int
}

// NewSplit returns a Split by these weights. A destination of weight 0 is never drawn, unless it stands alone (Istio
// ignores the weight of a lone destination). It fails where there is no destination.
func NewSplit(weights []uint32) (*Split, error) {
	if len(weights) == 0 {
		return nil, errors.New("cannot split among no destinations")
	}
	s := &Split{upTo: make([]uint64, len(weights)), only: -1}
	var sum uint64
	drawn := 0
	for i, w := range weights {
		sum += uint64(w)
		s.upTo[i] = sum
		if w > 0 || len(weights) == 1 {
			s.only = i
			drawn++
		}
	}
	if drawn != 1 {
		s.only = -1
	}
	return s, nil
}

// Pick returns the index of the destination drawn, or -1 where several stand together and all have weight 0.
func (s *Split) Pick(r *Rand) int {
	if s.only >= 0 {
		return s.only
	}
	n := len(s.upTo)
	total := s.upTo[n-1]
	if total == 0 {
		return -1
	}
	x := r.below(total)
	if n > 16 {
		return sort.Search(n, func(i int) bool { return x < s.upTo[i] })
	}
	i := 0
	for x >= s.upTo[i] {
		i++
	}
	return i
}
