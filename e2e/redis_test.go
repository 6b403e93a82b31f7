//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// redis speaks Redis's protocol on one connection.
type redis struct{ *wire }

// do sends a command and returns its reply, elements of arrays joined by spaces.
func (r *redis) do(args ...string) (string, error) {
	if err := r.send(args...); err != nil {
		return "", err
	}
	return r.reply()
}

func (r *redis) send(args ...string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	_, err := io.WriteString(r, b.String())
	return err
}

func (r *redis) reply() (string, error) {
	line, err := r.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	switch line[0] {
	case '-':
		return "", errors.New(line)
	case '$', '*':
		n, err := strconv.Atoi(line[1:])
		if err != nil || n < 0 {
			return "", err
		}
		if line[0] == '$' {
			b := make([]byte, n+2)
			_, err := io.ReadFull(r.in, b)
			return string(b[:n]), err
		}
		var all []string
		for range n {
			one, err := r.reply()
			if err != nil {
				return "", err
			}
			all = append(all, one)
		}
		return strings.Join(all, " "), nil
	default:
		return line[1:], nil
	}
}

// tally is what clients counted themselves, to compare the mesh's counters with.
type tally struct{ opened, sent, received atomic.Int64 }

// redis reaches a Redis, at a local port or by CONNECT.
func (m *mesh) redis(n *tally, address string, byConnect bool) *redis {
	m.t.Helper()
	var c net.Conn
	var err error
	if byConnect {
		c, err = m.tunnel(address)
	} else {
		c, err = net.Dial("tcp", address)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = c.Close() })
	n.opened.Add(1)
	return &redis{newWire(c, &n.sent, &n.received)}
}

// must is do for a command that has to succeed.
func (r *redis) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := r.do(args...)
	if err != nil {
		t.Fatalf("%s: %v", args[0], err)
	}
	return out
}

// TestRedis uses a real Redis through two sidecars, by a local port and by CONNECT, and compares every byte with the
// mesh's counters.
func TestRedis(t *testing.T) {
	t.Parallel()
	size, crowd := 50<<20, 50
	if long {
		size, crowd = 200<<20, 300
	}
	text, apps, at := stores(t, []store{{"cache", "v1", "redis", startRedis(t)}})
	m := up(t, text, prometheus, apps)
	var n tally
	for _, byConnect := range []bool{false, true} {
		address := at["cache"]
		if byConnect {
			address = "cache:" + port(address)
		}
		t.Run("commands by "+address[:strings.Index(address, ":")], func(t *testing.T) {
			r := m.redis(&n, address, byConnect)
			if got := r.must(t, "PING"); got != "PONG" {
				t.Errorf("PING: %q", got)
			}
			r.must(t, "SET", "name", "\r\n\x00 bytes as they are")
			if got := r.must(t, "GET", "name"); got != "\r\n\x00 bytes as they are" {
				t.Errorf("GET: %q", got)
			}
			_ = r.Close()
		})
	}
	t.Run("a large value both ways", func(t *testing.T) {
		r := m.redis(&n, at["cache"], false)
		value := strings.Repeat("0123456789abcdef", size/16)
		r.must(t, "SET", "large", value)
		if got := r.must(t, "GET", "large"); got != value {
			t.Errorf("a value of %d bytes comes back as one of %d, or another", size, len(got))
		}
		_ = r.Close()
	})
	t.Run("pipelined, then half-closed", func(t *testing.T) {
		r := m.redis(&n, at["cache"], false)
		const commands = 20_000
		if _, err := io.WriteString(r, strings.Repeat("*1\r\n$4\r\nPING\r\n", commands)); err != nil {
			t.Fatal(err)
		}
		for i := range commands {
			if got, err := r.reply(); err != nil || got != "PONG" {
				t.Fatalf("reply %d: %q, %v", i, got, err)
			}
		}
		if err := r.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(r.in); err != nil || len(rest) > 0 {
			t.Errorf("Redis leaves once its client has: %q, %v", rest, err)
		}
	})
	t.Run("subscribed for long", func(t *testing.T) { m.subscribed(t, &n, at["cache"]) })
	t.Run("a crowd", func(t *testing.T) {
		m.crowd(t, crowd, func(i int) error {
			byConnect := i%2 == 1
			address := at["cache"]
			if byConnect {
				address = "cache:" + port(address)
			}
			r := m.redis(&n, address, byConnect)
			defer r.Close()
			for k := range 50 {
				key := fmt.Sprint("k", i, "-", k)
				if _, err := r.do("SET", key, key); err != nil {
					return err
				}
				if got, err := r.do("GET", key); err != nil || got != key {
					return fmt.Errorf("%s is %q: %w", key, got, err)
				}
			}
			return nil
		})
	})
	m.awaitTCP("connections_opened", "cache", n.opened.Load())
	m.awaitTCP("connections_closed", "cache", n.opened.Load())
	m.awaitTCP("received_bytes", "cache", n.sent.Load())
	m.awaitTCP("sent_bytes", "cache", n.received.Load())
	if got := m.value(`istio_requests_total{destination_service_name="cache"}`); got != 0 {
		t.Errorf("%v HTTP requests were counted", got)
	}
}

// subscribed holds a connection on which only the server speaks, now and then; its bytes are counted while it lasts.
func (m *mesh) subscribed(t *testing.T, n *tally, address string) {
	t.Helper()
	m.scraped()
	open := m.tcp("connections_opened", "source", "cache") - m.tcp("connections_closed", "source", "cache")
	sub, pub := m.redis(n, address, false), m.redis(n, "cache:"+port(address), true)
	if got := sub.must(t, "SUBSCRIBE", "news"); got != "subscribe news 1" {
		t.Fatalf("%q", got)
	}
	for i := range 3 {
		item := fmt.Sprint("item ", i)
		if got := pub.must(t, "PUBLISH", "news", item); got != "1" {
			t.Fatalf("%s subscribers", got)
		}
		if got, err := sub.reply(); err != nil || got != "message news "+item {
			t.Fatalf("%q, %v", got, err)
		}
		// All that has passed is told while the connections are open, within seconds.
		m.awaitTCP("sent_bytes", "cache", n.received.Load())
		m.awaitTCP("received_bytes", "cache", n.sent.Load())
	}
	m.scraped()
	if now := m.tcp("connections_opened", "source", "cache") - m.tcp("connections_closed", "source", "cache"); now != open+2 {
		t.Errorf("%d connections are open as the counters have it, want %d", now, open+2)
	}
	_, _ = sub.Close(), pub.Close()
}

// TestRedisTools uses Redis's own programs through the mesh.
func TestRedisTools(t *testing.T) {
	t.Parallel()
	programs := need(t, "redis-cli", "redis-benchmark")
	text, apps, at := stores(t, []store{{"cache", "v1", "redis", startRedis(t)}})
	m := up(t, text, apps)
	for _, address := range []string{at["cache"], m.forwarder("cache:" + port(at["cache"]))} {
		cli := func(args ...string) string {
			t.Helper()
			return strings.TrimSpace(run(t, "", programs["redis-cli"], append([]string{"-h", "127.0.0.1", "-p", port(address)}, args...)...))
		}
		cli("FLUSHALL")
		cli("DEBUG", "POPULATE", "10000", "key", "100")
		if got := cli("DBSIZE"); got != "10000" {
			t.Errorf("DBSIZE: %s", got)
		}
		if got := strings.Count(cli("--scan", "--pattern", "key:*"), "\n") + 1; got != 10000 {
			t.Errorf("a scan finds %d keys", got)
		}
		out := run(t, "", programs["redis-benchmark"], "-h", "127.0.0.1", "-p", port(address), "-c", "40", "-n", "20000", "-P", "16", "-t", "set,get", "-q")
		if strings.Count(out, "requests per second") != 2 {
			t.Errorf("redis-benchmark: %s", out)
		}
	}
	if out, err := exec.Command(programs["redis-cli"], "-p", port(at["cache"]), "--rdb", t.TempDir()+"/dump.rdb").CombinedOutput(); err != nil {
		t.Errorf("a dump: %v\n%s", err, out)
	}
}
