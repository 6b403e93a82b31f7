package route

import (
	"sort"
	"strings"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/message"
)

// index finds the first of many conditions that holds for a request without trying them all: conditions are grouped by
// the literal text that their paths begin with, and only the groups whose text the request's path begins with are
// tried (BenchmarkMatch). Conditions that say nothing about a path's beginning form the group of the empty text.
type index struct {
	host       *model.VirtualHost // nil for unmatched hosts
	conditions []condition
	groups     []group // by text
}

// group holds the conditions whose paths begin with text, by their number, in order.
type group struct {
	text    string
	members []int32
	// shorter is the group with the longest text that this one's begins with, or -1.
	shorter int32
}

func newIndex(conditions []condition) *index {
	x := &index{conditions: conditions}
	members := map[string][]int32{}
	for i := range conditions {
		text := ""
		if p := conditions[i].path; p != nil {
			text = p.begin
		}
		members[text] = append(members[text], int32(i))
	}
	for text, m := range members {
		x.groups = append(x.groups, group{text: text, members: m})
	}
	sort.Slice(x.groups, func(i, j int) bool { return x.groups[i].text < x.groups[j].text })
	for i := range x.groups {
		// The chain of the group before leads to all texts that this one can begin with.
		j := int32(i) - 1
		for j >= 0 && !strings.HasPrefix(x.groups[i].text, x.groups[j].text) {
			j = x.groups[j].shorter
		}
		x.groups[i].shorter = j
	}
	return x
}

// first returns the first condition that holds, or nil.
func (x *index) first(r *message.Request) *condition {
	path := r.Path()
	best := int32(len(x.conditions))
	for g := x.longest(path); g >= 0; g = x.groups[g].shorter {
		for _, i := range x.groups[g].members {
			if i >= best {
				break
			}
			if x.conditions[i].hold(r) {
				best = i
				break
			}
		}
	}
	if int(best) == len(x.conditions) {
		return nil
	}
	return &x.conditions[best]
}

// longest returns the group with the longest text that path begins with, or -1. Every such text sorts at or before
// path, and whatever sorts between the two begins with it: so all are on the chain of the last group at or before path.
func (x *index) longest(path []byte) int32 {
	low, high := 0, len(x.groups)
	for low < high {
		if mid := int(uint(low+high) >> 1); x.groups[mid].text <= string(path) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	g := int32(low) - 1
	for g >= 0 {
		if text := x.groups[g].text; len(path) >= len(text) && string(path[:len(text)]) == text {
			break
		}
		g = x.groups[g].shorter
	}
	return g
}
