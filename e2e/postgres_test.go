//go:build linux

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// postgres speaks PostgreSQL's protocol on one connection, as far as a session without a password and simple queries need it.
type postgres struct{ *wire }

// begin opens the session.
func (p *postgres) begin(database string) error {
	parameters := "user\x00owner\x00database\x00" + database + "\x00\x00"
	head := binary.BigEndian.AppendUint32(nil, uint32(8+len(parameters)))
	head = binary.BigEndian.AppendUint32(head, 3<<16)
	if _, err := io.WriteString(p, string(head)+parameters); err != nil {
		return err
	}
	_, err := p.until('Z')
	return err
}

// query runs a statement and returns the values of its first column.
func (p *postgres) query(text string) ([]string, error) {
	head := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(text)+1))
	if _, err := io.WriteString(p, string(head)+text+"\x00"); err != nil {
		return nil, err
	}
	return p.until('Z')
}

// until reads messages until one of a kind, and returns the first column of rows, and the payload of notifications.
func (p *postgres) until(kind byte) (out []string, err error) {
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(p.in, head); err != nil {
			return out, err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(p.in, body); err != nil {
			return out, err
		}
		switch head[0] {
		case 'E':
			return out, fmt.Errorf("the server says %q", body)
		case 'D':
			n := binary.BigEndian.Uint32(body[2:])
			out = append(out, string(body[6:6+n]))
		case 'A': // process, channel, payload
			parts := bytes.Split(body[4:], []byte{0})
			out = append(out, string(parts[0])+" "+string(parts[1]))
		}
		if head[0] == kind {
			return out, nil
		}
	}
}

// postgres opens a session at a local port or by CONNECT.
func (m *mesh) postgres(n *tally, address string, byConnect bool) (*postgres, error) {
	dial := func() (net.Conn, error) { return net.Dial("tcp", address) }
	if byConnect {
		dial = func() (net.Conn, error) { return m.tunnel(address) }
	}
	c, err := dial()
	if err != nil {
		return nil, err
	}
	n.opened.Add(1)
	p := &postgres{newWire(c, &n.sent, &n.received)}
	if err := p.begin("postgres"); err != nil {
		_ = c.Close()
		return nil, err
	}
	return p, nil
}

// TestPostgres uses a real PostgreSQL through two sidecars: its own programs at a local port and through CONNECT, and
// sessions whose bytes are compared with the mesh's counters.
func TestPostgres(t *testing.T) {
	t.Parallel()
	heavy(t)
	programs := need(t, "psql", "pg_dump", "pgbench", "createdb")
	text, apps, at := stores(t, []store{{"ledger", "v1", "postgres", startPostgres(t)}})
	m := up(t, text, prometheus, apps)
	named := "ledger:" + port(at["ledger"])
	var n tally
	t.Run("sessions counted", func(t *testing.T) {
		m.crowd(t, 150, func(i int) error {
			address := at["ledger"]
			if i%2 == 1 {
				address = named
			}
			p, err := m.postgres(&n, address, i%2 == 1)
			if err != nil {
				return err
			}
			defer p.Close()
			for k := range 20 {
				if got, err := p.query(fmt.Sprintf("select %d * %d", i, k)); err != nil || len(got) != 1 || got[0] != fmt.Sprint(i*k) {
					return fmt.Errorf("%d * %d is %v: %w", i, k, got, err)
				}
			}
			return nil
		})
		m.awaitTCP("connections_opened", "ledger", n.opened.Load())
		m.awaitTCP("connections_closed", "ledger", n.opened.Load())
		m.awaitTCP("received_bytes", "ledger", n.sent.Load())
		m.awaitTCP("sent_bytes", "ledger", n.received.Load())
	})
	t.Run("listen and notify", func(t *testing.T) {
		listener, err := m.postgres(&n, at["ledger"], false)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		if _, err := listener.query("listen news"); err != nil {
			t.Fatal(err)
		}
		notifier, err := m.postgres(&n, named, true)
		if err != nil {
			t.Fatal(err)
		}
		defer notifier.Close()
		for i := range 3 {
			if _, err := notifier.query(fmt.Sprintf("notify news, 'item %d'", i)); err != nil {
				t.Fatal(err)
			}
			if got, err := listener.until('A'); err != nil || len(got) != 1 || got[0] != fmt.Sprint("news item ", i) {
				t.Fatalf("%q, %v", got, err)
			}
			m.awaitTCP("sent_bytes", "ledger", n.received.Load()) // counted while the connections last
			m.awaitTCP("received_bytes", "ledger", n.sent.Load())
		}
	})
	for _, address := range []string{at["ledger"], m.forwarder(named)} {
		t.Run("tools at "+address, func(t *testing.T) { postgresTools(t, programs, address) })
	}
	if opened := m.agreed("connections_opened", "ledger"); opened < n.opened.Load()+10 {
		t.Errorf("%d connections were counted", opened)
	}
	m.agreed("sent_bytes", "ledger")
	m.agreed("received_bytes", "ledger")
}

// postgresTools fills a database, takes a large result, dumps and restores, and runs PostgreSQL's own load.
func postgresTools(t *testing.T, programs map[string]string, address string) {
	connection := []string{"-h", "127.0.0.1", "-p", port(address), "-U", "owner"}
	psql := func(database, text string) string {
		t.Helper()
		return strings.TrimSpace(run(t, text, programs["psql"], append(connection, "-d", database, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1")...))
	}
	psql("postgres", "drop database if exists shop; drop database if exists copy;")
	run(t, "", programs["createdb"], append(connection, "shop")...)
	run(t, "", programs["createdb"], append(connection, "copy")...)
	psql("shop", "create table orders (id int primary key, note text); insert into orders select i, repeat(md5(i::text), 20) from generate_series(1, 100000) i;")
	const sum = "select count(*), md5(string_agg(md5(note), '' order by id)) from orders"
	want := psql("shop", sum)

	result := psql("shop", "copy (select id, note from orders order by id) to stdout")
	if lines := strings.Count(result, "\n") + 1; lines != 100_000 || len(result) < 60<<20 {
		t.Errorf("a large result has %d lines, %d bytes", lines, len(result))
	}
	file := filepath.Join(t.TempDir(), "dump.sql")
	run(t, "", programs["pg_dump"], append(connection, "-f", file, "shop")...)
	run(t, "", programs["psql"], append(connection, "-d", "copy", "-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-f", file)...)
	if got := psql("copy", sum); got != want || !strings.HasPrefix(want, "100000|") {
		t.Errorf("restored: %s, want %s", got, want)
	}
	if out, err := exec.Command(programs["psql"], append(connection, "-d", "shop", "-c", "select 1/0")...).CombinedOutput(); err == nil || !strings.Contains(string(out), "division by zero") {
		t.Errorf("an error: %v %s", err, out)
	}
	run(t, "", programs["pgbench"], append(connection, "-i", "-q", "shop")...)
	out := run(t, "", programs["pgbench"], append(connection, "-c", "40", "-j", "2", "-t", "50", "-n", "shop")...)
	if !strings.Contains(out, "transactions actually processed: 2000/2000") || !strings.Contains(out, "failed transactions: 0 ") {
		t.Errorf("pgbench: %s", out)
	}
	out = run(t, "", programs["pgbench"], append(connection, "-c", "10", "-C", "-t", "30", "-n", "-S", "shop")...)
	if !strings.Contains(out, "transactions actually processed: 300/300") {
		t.Errorf("pgbench with a connection a transaction: %s", out)
	}
}
