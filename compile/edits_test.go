package compile

import (
	"fmt"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// What a rule and its destinations do to the same fields comes in Istio's order, which is another one for a single destination.
func TestEditsOfRuleAndDestinations(t *testing.T) {
	nv := func(pairs ...string) (out []model.NameValue) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, model.NameValue{Name: pairs[i], Value: pairs[i+1]})
		}
		return out
	}
	rule := model.HeaderEdits{Remove: []string{"a"}, Set: nv("b", "rule", "d", "rule", "host", "rule"), Add: nv("c", "rule")}
	own := model.HeaderEdits{Remove: []string{"b", "c"}, Set: nv("a", "own", "d", "own", "host", "own"), Add: nv("c", "own")}
	f := func(rule model.HeaderEdits, destinations []model.HeaderEdits, want string) {
		t.Helper()
		v := &virtualRule{base: model.Rule{Request: rule, Response: rule}}
		for _, e := range destinations {
			v.destinations = append(v.destinations, virtualDestination{request: e, response: e})
		}
		v.unite()
		got := fmt.Sprint(v.base.Request)
		for _, d := range v.destinations {
			got += fmt.Sprint(d.request)
			if fmt.Sprint(d.request) != fmt.Sprint(d.response) {
				t.Errorf("requests %v, responses %v", d.request, d.response)
			}
		}
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	f(rule, []model.HeaderEdits{own}, "{[] [] []}{[a b c] [{b rule} {d rule} {host rule} {a own} {d own}] [{c rule} {c own}]}")
	f(rule, []model.HeaderEdits{own, {}}, "{[] [] []}{[c a] [{b rule} {d rule} {host rule}] [{c own} {c rule}]}{[a] [{b rule} {d rule} {host rule}] [{c rule}]}")
	f(rule, []model.HeaderEdits{{}, {}}, "{[a] [{b rule} {d rule} {host rule}] [{c rule}]}{[] [] []}{[] [] []}")
	f(model.HeaderEdits{}, []model.HeaderEdits{own}, "{[] [] []}{[b c] [{a own} {d own} {host own}] [{c own}]}")
}
