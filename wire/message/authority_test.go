package message

import "testing"

func TestSplitAuthority(t *testing.T) {
	f := func(in, host string, port int, well bool) {
		t.Helper()
		h, p, ok := SplitAuthority([]byte(in))
		if string(h) != host || p != port || ok != well {
			t.Errorf("%s: %s, %d, %v", in, h, p, ok)
		}
	}
	f("", "", 0, true)
	f("a", "a", 0, true)
	f("a:80", "a", 80, true)
	f("a:", "a", 0, true)
	f("a:65535", "a", 65535, true)
	f("a:65536", "a:65536", 0, false)
	f("a:99999999999999999999999", "a:99999999999999999999999", 0, false)
	f("a:8o", "a:8o", 0, false)
	f("a:-1", "a:-1", 0, false)
	f("[::1]", "[::1]", 0, true)
	f("[::1]:80", "[::1]", 80, true)
	f("[::1]:", "[::1]", 0, true)
	f("[::1]80", "[::1]80", 0, false)
	f("[::1", "[::1", 0, false)
	f("[", "[", 0, false)
	f("[a]", "[a]", 0, false)
	f("::1]", "::1]", 0, false)
	f("::1", "::1", 0, true)
	f(":80", "", 80, true)
}
