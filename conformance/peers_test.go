package conformance

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/meshtest"
)

// other is another proxy that the tables are played against.
type other struct {
	name, program, variable string
	version                 []string
	conf, file              string // conf is given a directory, addresses to listen at with HTTP/1 and 2, and the application's host and port
	args                    []string
}

var others = []other{
	{name: "nginx", program: "nginx", variable: "NGINX", version: []string{"-v"}, file: "nginx.conf", args: []string{"-c"}, conf: `
daemon off; master_process off; worker_processes 1; pid %[1]s/nginx.pid; error_log %[1]s/error.log crit;
events { worker_connections 256; }
http {
  access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  client_header_timeout 400ms; client_body_timeout 400ms; proxy_read_timeout 800ms; lingering_close off;
  large_client_header_buffers 8 16k;
  server { listen %[2]s; listen %[3]s http2; location / { proxy_pass http://%[4]s:%[5]s; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; } }
}`},
	{name: "HAProxy", program: "haproxy", variable: "HAPROXY", version: []string{"-v"}, file: "haproxy.cfg", args: []string{"-db", "-f"}, conf: `
defaults
  mode http
  timeout http-request 400ms
  timeout client 800ms
  timeout server 800ms
  timeout connect 1s
  retries 0
frontend in
  bind %[2]s
  bind %[3]s proto h2
  default_backend app
backend app
  server app %[4]s:%[5]s
`},
	{name: "Envoy", program: "envoy", variable: "ENVOY", version: []string{"--version"}, file: "envoy.yaml", args: []string{"--concurrency", "1", "--disable-hot-restart", "-l", "off", "-c"}, conf: `
admin: {}
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: PORT}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          normalize_path: true
          request_headers_timeout: 0.4s
          stream_idle_timeout: 0.8s
          delayed_close_timeout: 0.02s
          http2_protocol_options: {allow_connect: true}
          http_protocol_options: {accept_http_10: true, default_host_for_http_10: app, enable_trailers: true}
          upgrade_configs: [{upgrade_type: websocket}]
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: app}}]}
  clusters:
  - name: app
    connect_timeout: 1s
    load_assignment: {cluster_name: app, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %[4]s, port_value: %[5]s}}}}]}]}
`},
}

// find returns the program's path, or "".
func (o *other) find() string {
	if path := os.Getenv(o.variable); path != "" {
		return path
	}
	path, _ := exec.LookPath(o.program)
	return path
}

var digits = regexp.MustCompile(`\d+\.\d+(\.\d+)?`)

// about is the name with the version.
func (o *other) about() string {
	out, err := exec.Command(o.find(), o.version...).CombinedOutput()
	if err != nil {
		return o.name
	}
	return o.name + " " + digits.FindString(string(out))
}

// run starts the program before the application and returns where it listens with HTTP/1 and with HTTP/2.
func (o *other) run(t *testing.T, application string) (address, address2 string) {
	t.Helper()
	dir := t.TempDir()
	address, address2 = meshtest.Address(t), meshtest.Address(t)
	if strings.Contains(o.conf, "PORT") {
		address2 = address // it tells the versions apart
	}
	_, port, _ := net.SplitHostPort(address)
	host, appPort, _ := net.SplitHostPort(application)
	conf := fmt.Sprintf(strings.ReplaceAll(o.conf, "PORT", port)+"\n# %[1]s %[2]s %[3]s %[4]s %[5]s\n", dir, address, address2, host, appPort)
	file := filepath.Join(dir, o.file)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(o.find(), append(o.args, file)...)
	var said strings.Builder
	cmd.Stderr, cmd.Stdout = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-gone
	})
	eventually(t, o.name+" listens", func() bool {
		select {
		case <-gone:
			t.Fatalf("%s does not run: %s", o.name, said.String())
		default:
		}
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return address, address2
}

// behaviour is what a proxy did with a case.
type behaviour struct {
	// forwards says how many requests reached the application whole or, of a case about responses, whether the response
	// reached the client whole (1 or 0).
	forwards int
	answers  string // the statuses that the client got, and how its connection ended
}

// observe plays a case against any proxy. Behind its bytes comes a probe, whose answer ends the wait.
func (s *scenario) observe(t *testing.T, address string, b *backend, responses bool) behaviour {
	b.script(s)
	if s.client2 {
		return s.observe2(t, address, b)
	}
	_, before := b.since(0)
	c := dial(t, address)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	var did []string
	var last response
	whole := 0
	methods := requestLine.FindAllSubmatch(s.sent(), -1)
	read := func() bool {
		method := "GET"
		if whole < len(methods) {
			method = string(methods[whole][1])
		}
		a, err := c.read(method)
		if err == nil && a.status == 200 && a.body == probe {
			return false
		}
		if a.status != 0 {
			last = a
			did = append(did, strconv.Itoa(a.status))
		}
		if err != nil {
			last.status = 0
			if !errors.Is(err, errClose) && !errors.Is(err, errCut) && !errors.Is(err, errHang) {
				err = errors.New("garbage")
			}
			did = append(did, err.Error())
			return false
		}
		if a.status >= 200 {
			whole++
		}
		return a.status != 101
	}
	open, ended := true, false
	for _, st := range s.steps {
		switch {
		case st.send != nil:
			_, _ = c.Write(st.send)
		case st.end:
			_ = c.Conn.(*net.TCPConn).CloseWrite()
			ended = true
		case st.wait != 0:
			for n := len(did); open && len(did) == n; {
				open = read()
			}
		}
	}
	if !ended {
		_, _ = c.Write([]byte("GET " + probe + " HTTP/1.1\r\nHost: app\r\n\r\n"))
	}
	final := response{}
	for open {
		open = read()
		if last.status >= 200 || last.status == 101 {
			final = last
		}
	}
	if len(did) > 0 && did[len(did)-1] == errCut.Error() {
		final = response{}
	}
	_, after := b.since(0)
	o := behaviour{forwards: len(after) - len(before), answers: strings.Join(did, " ")}
	if responses {
		o.forwards = 0
		switch final.status {
		case 0, 500, 502, 503, 504: // the proxy's own word: no case has the application say so
		default:
			o.forwards = 1
		}
	}
	return o
}

// observe2 is observe for a client of HTTP/2.
func (s *scenario) observe2(t *testing.T, address string, b *backend) behaviour {
	_, before := b.since(0)
	c := dial2(t, address)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	id := c.next
	c.play(id, s.frames)
	k := c.of(id)
	for !k.end && k.reset == nil && c.step() {
		if len(k.heads) > 0 && k.heads[len(k.heads)-1] >= "200" && s.frames[0].fields[0][1] == "CONNECT" {
			break // a tunnel
		}
	}
	_, after := b.since(0)
	return behaviour{forwards: len(after) - len(before), answers: c.said(k)}
}

// TestPeers plays all cases against other proxies, which must not all refuse what we forward.
func TestPeers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	type column struct {
		about   string
		b       *backend
		address func(s *scenario) string
		did     map[*scenario]behaviour
	}
	kinds := [][]*table{tables(t, "requests"), tables(t, "streams"), tables(t, "responses")}
	each := func(f func(s *scenario, responses bool)) {
		for i, files := range kinds {
			for _, file := range files {
				for _, c := range file.classes {
					for _, s := range c.cases {
						f(s, i == 2)
					}
				}
			}
		}
	}
	b := newBackend(t)
	m := start(t, b.address(), setting{})
	columns := map[string]*column{"Outrider": {about: "Outrider", b: b, address: func(s *scenario) string { return m.Address(s.at[0]) }}}
	for _, o := range others {
		if o.find() == "" {
			t.Run(o.name, func(t *testing.T) {
				t.Skipf("%s is neither on PATH nor named by $%s, so nothing is compared with it", o.program, o.variable)
			})
			continue
		}
		b := newBackend(t)
		address, address2 := o.run(t, b.address())
		columns[o.name] = &column{about: o.about(), b: b, address: func(s *scenario) string {
			if s.client2 {
				return address2
			}
			return address
		}}
	}
	t.Run("all", func(t *testing.T) {
		for name, k := range columns {
			k.did = map[*scenario]behaviour{}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				each(func(s *scenario, responses bool) { k.did[s] = s.observe(t, k.address(s), k.b, responses) })
			})
		}
	})
	if len(columns) < 1+len(others) {
		t.Logf("only %d of %d other proxies are there: whether we are laxer than all of them cannot be said", len(columns)-1, len(others))
		return
	}
	each(func(s *scenario, responses bool) {
		// They are short of patience: on a machine that has much to do they are asked again, each by itself.
		for try := 0; ; try++ {
			most := 0
			for _, o := range others {
				most = max(most, columns[o.name].did[s].forwards)
			}
			ours := columns["Outrider"].did[s].forwards
			if ours <= most || s.why != "" {
				return
			}
			if try == 10 {
				t.Errorf("%s:%d: %s: forwarded here (%d) and by nobody else (%d), with no word why", s.file, s.line, s.name, ours, most)
				return
			}
			for _, k := range columns {
				k.did[s] = s.observe(t, k.address(s), k.b, responses)
			}
		}
	})
	if !*update {
		return
	}
	names := []string{"Outrider"}
	abouts := []string{"Outrider"}
	for _, o := range others {
		names, abouts = append(names, o.name), append(abouts, columns[o.name].about)
	}
	err := writeComparison(kinds, names, abouts, func(name string, s *scenario) behaviour { return columns[name].did[s] })
	if err != nil {
		t.Error(err)
	}
}
