package outlier

import "testing"

// TestPassed: what is no error ends a row as Answered does; an error is left to Answered.
func TestPassed(t *testing.T) {
	f := func(s Settings, bad, status int, want bool) {
		t.Helper()
		_, h := pool(t, s, 1)
		fail(t, h[0], bad, 2, 1)
		if got := h[0].Passed(status); got != want || (h[0].failures.Load() == 0) != want {
			t.Errorf("%d: %t, want %t; %d failures in a row", status, got, want, h[0].failures.Load())
		}
	}
	plain := all(func(*Settings) {})
	f(plain, 503, 429, true)
	f(plain, 503, 200, true)
	f(plain, 503, 500, false)
	f(plain, 503, 503, false)
	coded := plain
	if err := coded.Codes.Add(429); err != nil {
		t.Fatal(err)
	}
	f(coded, 429, 429, false)
	f(coded, 429, 503, true)
	f(coded, 429, 200, true)
}
