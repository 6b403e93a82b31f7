package compile

import (
	"slices"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// unite orders the edits of heads that a rule and its destinations ask for, as Istio has Envoy order them. With one destination
// all are one list, in which what is removed comes before what is set, and that before what is added; the destination has the last
// word. With several the rule's edits follow theirs. The authority that the rule sets wins. Destinations take over the rule's edits
// where both have some, so that there is one order.
func (v *virtualRule) unite() {
	unite := func(rule *model.HeaderEdits, of func(*virtualDestination) *model.HeaderEdits) {
		own := func(d virtualDestination) bool { return edit(of(&d)) }
		if !edit(rule) || !slices.ContainsFunc(v.destinations, own) {
			return
		}
		authority := slices.ContainsFunc(rule.Set, isHost)
		for i := range v.destinations {
			e := of(&v.destinations[i])
			set := e.Set
			if authority {
				set = slices.DeleteFunc(slices.Clone(set), isHost)
			}
			if len(v.destinations) == 1 {
				*e = model.HeaderEdits{Remove: slices.Concat(rule.Remove, e.Remove), Set: slices.Concat(rule.Set, set), Add: slices.Concat(rule.Add, e.Add)}
			} else {
				*e = followed(model.HeaderEdits{Remove: e.Remove, Set: set, Add: e.Add}, *rule)
			}
		}
		*rule = model.HeaderEdits{}
	}
	unite(&v.base.Request, func(d *virtualDestination) *model.HeaderEdits { return &d.request })
	unite(&v.base.Response, func(d *virtualDestination) *model.HeaderEdits { return &d.response })
}

// edit says whether the edits change anything.
func edit(e *model.HeaderEdits) bool { return len(e.Remove)+len(e.Set)+len(e.Add) > 0 }

func isHost(nv model.NameValue) bool { return nv.Name == "host" }

// followed are the edits that do what first and then do, one after the other: of a field that then removes or sets nothing is
// left of what first did.
func followed(first, then model.HeaderEdits) model.HeaderEdits {
	settled := func(name string) bool {
		return slices.Contains(then.Remove, name) || slices.ContainsFunc(then.Set, func(nv model.NameValue) bool { return nv.Name == name })
	}
	left := func(all []model.NameValue) []model.NameValue {
		return slices.DeleteFunc(slices.Clone(all), func(nv model.NameValue) bool { return settled(nv.Name) })
	}
	return model.HeaderEdits{
		Remove: append(slices.DeleteFunc(slices.Clone(first.Remove), settled), then.Remove...),
		Set:    append(left(first.Set), then.Set...),
		Add:    append(left(first.Add), then.Add...),
	}
}
