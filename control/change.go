package control

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/outrider-mesh/outrider/config"
)

// Change is what one Update did.
type Change struct {
	Generation uint64
	// Objects that are new, differ or are gone, in the order of objects.
	Objects []ObjectChange
	// Kept are objects whose last good version stays in force, because the files hold none that is valid now.
	Kept []*config.Object
	// Findings that the Update before did not have.
	Findings []config.Finding
	// Applied, Refused and Pending are the proxies that a new snapshot was published for, by their answer; sorted by key
	// within the order of publishing.
	Applied []string
	Refused []Refusal
	Pending []string
	// Removed are the proxies that the mesh has no place for any more, sorted. They run until their owner ends them.
	Removed []string
}

// Nothing says whether the change changed nothing and has nothing to say.
func (c *Change) Nothing() bool {
	return len(c.Objects)+len(c.Findings)+len(c.Applied)+len(c.Refused)+len(c.Pending)+len(c.Removed) == 0
}

// ObjectChange is one object's part in a Change.
type ObjectChange struct {
	What   string // "added", "changed" or "removed"
	Object *config.Object
}

// Refusal is one proxy's nack.
type Refusal struct {
	Key, Version, Reason string
}

func inOrder(a, b *config.Object) int {
	return cmp.Or(
		cmp.Compare(a.Source.File, b.Source.File), cmp.Compare(a.Source.Line, b.Source.Line), cmp.Compare(a.Source.Column, b.Source.Column),
		cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name),
	)
}

// compare tells the objects apart that differ in more than their place.
func compare(before, after []*config.Object) []ObjectChange {
	var out []ObjectChange
	old := map[config.Key]*config.Object{}
	for _, o := range before {
		old[o.Key()] = o
	}
	for _, o := range after {
		switch was := old[o.Key()]; {
		case was == nil:
			out = append(out, ObjectChange{"added", o})
		case !same(was, o):
			out = append(out, ObjectChange{"changed", o})
		}
		delete(old, o.Key())
	}
	for _, o := range old {
		out = append(out, ObjectChange{"removed", o})
	}
	slices.SortFunc(out, func(a, b ObjectChange) int { return inOrder(a.Object, b.Object) })
	return out
}

func same(a, b *config.Object) bool {
	if a == b {
		return true
	}
	if a.Version != b.Version || !maps.Equal(a.Labels, b.Labels) || !maps.Equal(a.Annotations, b.Annotations) || !slices.Equal(a.Owners, b.Owners) {
		return false
	}
	x, isProto := a.Spec.(proto.Message)
	y, alsoProto := b.Spec.(proto.Message)
	if isProto && alsoProto {
		return proto.Equal(x, y) // DeepEqual sees the bookkeeping inside of messages too
	}
	return reflect.DeepEqual(a.Spec, b.Spec)
}

// fresh returns the findings that were not there before.
func fresh(before, after []config.Finding) []config.Finding {
	had := map[config.Finding]bool{}
	for _, f := range before {
		had[f] = true
	}
	var out []config.Finding
	for _, f := range after {
		if !had[f] {
			out = append(out, f)
		}
	}
	return out
}
