//go:build linux

package e2e

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/local"
)

// mariadb is MariaDB's own client at an address.
type mariadb struct {
	programs map[string]string
	address  string
}

func (d mariadb) arguments(more ...string) []string {
	return append([]string{"--no-defaults", "--protocol=tcp", "-h", "127.0.0.1", "-P", port(d.address), "-u", "app", "-psecret", "--skip-ssl"}, more...)
}

func (d mariadb) query(t *testing.T, database, text string) string {
	t.Helper()
	return strings.TrimSpace(run(t, text, d.programs["mariadb"], d.arguments("-N", "-B", "--quick", database)...))
}

// TestMariaDB uses a real MariaDB, which speaks first, through two sidecars: on a port named mysql, and on one whose
// protocol nobody declared, where the mesh waits for the client for a bounded time and says so once.
func TestMariaDB(t *testing.T) {
	t.Parallel()
	heavy(t)
	programs := need(t, "mariadb", "mariadb-dump")
	app := startMariaDB(t)
	said := &transcript{}
	text, apps, at := stores(t, []store{{"stock", "v1", "mysql", app}, {"books", "v1", "data", app}})
	m := up(t, text, prometheus, apps, func(o *local.Options) {
		o.Log = slog.New(slog.NewTextHandler(said, nil))
	})
	declared, undeclared := "stock:"+port(at["stock"]), "books:"+port(at["books"])

	t.Run("declared", func(t *testing.T) {
		for _, address := range []string{at["stock"], m.forwarder(declared)} {
			mariadbTools(t, mariadb{programs, address})
		}
		if strings.Contains(said.String(), "waits for the server") {
			t.Errorf("a declared port was listened to: %s", said)
		}
	})
	t.Run("undeclared", func(t *testing.T) {
		for _, address := range []string{at["books"], m.forwarder(undeclared)} {
			d := mariadb{programs, address}
			if got := d.query(t, "shop", "select 6 * 7"); got != "42" {
				t.Errorf("%q", got)
			}
			if got := d.query(t, "shop", "select repeat('x', 1000) from seq_1_to_60000"); len(got) != 60_000*1001-1 {
				t.Errorf("a large result has %d bytes", len(got))
			}
		}
		m.crowd(t, 30, func(i int) error {
			out, err := try(t, "select sum(seq) from seq_1_to_1000", programs["mariadb"], mariadb{programs, at["books"]}.arguments("-N", "-B", "shop")...)
			if err != nil || strings.TrimSpace(out) != "500500" {
				return fmt.Errorf("%q: %w", out, err)
			}
			return nil
		})
		// The server's sidecar detects at its one port, the client's at :15001 and at the local port.
		lines := map[string]int{}
		for line := range strings.Lines(said.String()) {
			if strings.Contains(line, "waits for the server") {
				_, listener, _ := strings.Cut(strings.TrimSpace(line), "listener=")
				lines[listener]++
			}
		}
		if len(lines) == 0 {
			t.Errorf("nobody was told that a client waits for its server: %s", said)
		}
		for listener, n := range lines {
			if n != 1 {
				t.Errorf("it was said %d times of %s", n, listener)
			}
		}
	})
	for service, clients := range map[string]int64{"stock": 14, "books": 34} { // as many as the programs above are
		m.awaitTCP("connections_opened", service, clients)
		m.agreed("connections_closed", service)
		m.agreed("sent_bytes", service)
		m.agreed("received_bytes", service)
	}
	// A server's share in the detection is counted.
	if got := m.value(`sum(outrider_protocol_detected_total{protocol="silent"})`); got < 30 {
		t.Errorf("%v connections were found silent", got)
	}
}

// mariadbTools fills a table, takes a large result, dumps and restores.
func mariadbTools(t *testing.T, d mariadb) {
	t.Helper()
	d.query(t, "shop", "drop database if exists copy; create database copy; drop table if exists items; create table items (id int primary key, note text) engine=innodb; "+
		"insert into items select seq, repeat(md5(seq), 20) from seq_1_to_100000;")
	const sum = "select count(*), sum(crc32(note)) from items"
	want := d.query(t, "shop", sum)
	if result := d.query(t, "shop", "select id, note from items order by id"); strings.Count(result, "\n")+1 != 100_000 || len(result) < 60<<20 {
		t.Errorf("a large result has %d bytes", len(result))
	}
	dump := run(t, "", d.programs["mariadb-dump"], d.arguments("--single-transaction", "shop")...)
	if len(dump) < 60<<20 {
		t.Errorf("a dump has %d bytes", len(dump))
	}
	d.query(t, "copy", dump)
	if got := d.query(t, "copy", sum); got != want || !strings.HasPrefix(want, "100000\t") {
		t.Errorf("restored: %s, want %s", got, want)
	}
	if out, err := try(t, "select nothing", d.programs["mariadb"], d.arguments("shop")...); err == nil || !strings.Contains(err.Error(), "Unknown column") {
		t.Errorf("an error: %v %s", err, out)
	}
}

// TestDetectionTimeout shortens the wait for a client that says nothing, by the mesh's configuration: the server's
// greeting, which nothing but the end of the wait releases, arrives all the same.
func TestDetectionTimeout(t *testing.T) {
	t.Parallel()
	app := listenTCP(t, func(c *conversation) {
		c.say("220 ready\r\n")
		for c.heard() != "" {
			c.say("250 ok\r\n")
		}
	})
	text, apps, at := stores(t, []store{{"mail", "v1", "box", app}})
	f := func(name, configuration string) {
		t.Run(name, func(t *testing.T) {
			said := &transcript{}
			m := up(t, text+configuration, apps, func(o *local.Options) { o.Log = slog.New(slog.NewTextHandler(said, nil)) })
			for _, address := range []string{at["mail"], m.forwarder("mail:" + port(at["mail"]))} {
				if got := dialogue(t, address, "", "HELO\r\n", "QUIT\r\n"); got != "220 ready\r\n250 ok\r\n250 ok\r\n" {
					t.Errorf("%q", got)
				}
			}
			if !strings.Contains(said.String(), "waits for the server") {
				t.Errorf("it is not said that a client waits: %s", said)
			}
		})
	}
	f("as it is", "")
	f("shorter", "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    protocolDetectionTimeout: 50ms\n")
}
