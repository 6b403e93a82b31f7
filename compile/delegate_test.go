package compile

import (
	"testing"

	networking "istio.io/api/networking/v1alpha3"
)

// TestAmong follows Istio in what a delegate may match: what it says of a property must certainly lie within what the root says.
func TestAmong(t *testing.T) {
	exact := func(s string) *networking.StringMatch {
		return &networking.StringMatch{MatchType: &networking.StringMatch_Exact{Exact: s}}
	}
	prefix := func(s string) *networking.StringMatch {
		return &networking.StringMatch{MatchType: &networking.StringMatch_Prefix{Prefix: s}}
	}
	regex := func(s string) *networking.StringMatch {
		return &networking.StringMatch{MatchType: &networking.StringMatch_Regex{Regex: s}}
	}
	present := &networking.StringMatch{}
	f := func(root, sub *networking.StringMatch, want bool) {
		t.Helper()
		if got := among(sub, root); got != want {
			t.Errorf("%v within %v: %t; want %t", sub, root, got, want)
		}
	}
	f(nil, nil, true)
	f(nil, regex("a"), true)
	f(regex("a"), nil, true)
	f(prefix("/a"), prefix("/a"), true)
	f(prefix("/a"), prefix("/ab"), true)
	f(prefix("/a"), exact("/a/b"), true)
	f(prefix("/a/b"), prefix("/a"), false)
	f(prefix("/a/b"), exact("/a"), false)
	f(exact("/a"), exact("/a"), true)
	f(exact("/a"), exact("/b"), false)
	f(exact("/a"), prefix("/a"), false)
	f(regex("/a"), exact("/a"), false)
	f(regex("/a"), regex("/a"), false)
	f(prefix("/a"), regex("/ab"), false)
	f(exact("/a"), regex("/a"), false)
	f(present, exact("a"), false)
	f(present, present, false)
	f(exact("a"), present, false)
}
