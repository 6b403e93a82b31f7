package probe

import "testing"

func TestVerdict(t *testing.T) {
	// answers are "." good and "x" bad; want has the state after each: "?" unknown, "r" ready, "u" unready.
	f := func(from State, successes, failures uint32, answers, want string) {
		t.Helper()
		v, got := verdict{state: from}, ""
		for _, a := range answers {
			before := v.state
			if changed := v.add(a == '.', successes, failures); changed != (v.state != before) {
				t.Errorf("%s: changed is %v, from %v to %v", answers, changed, before, v.state)
			}
			got += string("?ru"[v.state])
		}
		if got != want {
			t.Errorf("from %s, %d good or %d bad, answers %s: %s, want %s", from, successes, failures, answers, got, want)
		}
	}
	f(Unknown, 1, 3, ".xx.xxx.", "rrrrrrur")
	f(Unknown, 1, 3, "xxxx.", "??uur")
	f(Unknown, 2, 1, ".x..x..", "?uuruur")
	f(Unknown, 3, 2, "..x...x.xx...", "?????rrrruuur")
	f(Ready, 1, 3, "xxx", "rru")
	f(Ready, 1, 1, ".x.", "rur")
	f(Unready, 3, 1, "..x...", "uuuuur")
}
