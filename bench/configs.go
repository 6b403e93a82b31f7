//go:build linux

package main

import (
	"bytes"
	"embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed configs
var configFiles embed.FS

var configTemplates = template.Must(template.ParseFS(configFiles, "configs/*.tmpl"))

// site is what a configuration is rendered from.
type site struct {
	meshConfig
	*lane
	*identity
	endpoint       // where to listen, in two parts
	Listen         string
	Dir            string // for files of the proxy's own
	Backends       []string
	Endpoints      []endpoint // the same in two parts
	Operation      string     // what spans of the mesh would be called
	Files          int        // open files allowed
	MaxConnections int        // clients and backends together
	Pool           int        // idle connections to the backends to keep
	StreamModule   string     // the file of nginx's module for TCP, where it is not built in
}

// rendered returns a command function that fills the template of a configuration file and passes the file after args.
func rendered(file string, args ...string) func(*bench, *entrant, string, string) ([]string, error) {
	return func(b *bench, e *entrant, listen, dir string) ([]string, error) {
		text, err := render(file, e, b.backendAddresses(e.lane), b.identity, listen, dir, b.files)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return nil, err
		}
		return append(append([]string{}, args...), path), nil
	}
}

func render(file string, e *entrant, backends []string, i *identity, listen, dir string, files int) ([]byte, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, err
	}
	s := site{
		meshConfig: newMesh(backends), lane: e.lane, identity: i, endpoint: endpoint{host, port}, Listen: listen, Dir: dir, Backends: backends,
		Endpoints: endpointsOf(backends), Operation: serviceHost + ".default.svc.cluster.local:" + servicePort + "/*",
		Files: files, MaxConnections: 4096, Pool: 512,
	}
	if e.name == nginxName && e.lane.TCP() {
		if s.StreamModule, err = streamModule(e.path); err != nil {
			return nil, err
		}
	}
	var text bytes.Buffer
	if err := configTemplates.ExecuteTemplate(&text, file+".tmpl", s); err != nil {
		return nil, fmt.Errorf("cannot write %s: %w", file, err)
	}
	return text.Bytes(), nil
}

// streamModule returns the file of nginx's module for TCP, empty where it is built in.
func streamModule(nginx string) (string, error) {
	out, err := exec.Command(nginx, "-V").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("cannot ask nginx how it was built: %w", err)
	}
	dir := ""
	for word := range strings.FieldsSeq(string(out)) {
		if word == "--with-stream" {
			return "", nil
		}
		if d, ok := strings.CutPrefix(word, "--modules-path="); ok {
			dir = d
		}
	}
	file := filepath.Join(dir, "ngx_stream_module.so")
	if _, err := os.Stat(file); err != nil {
		return "", fmt.Errorf("nginx has no module for TCP; install it with: apt-get install libnginx-mod-stream (%w)", err)
	}
	return file, nil
}

// nghttpxCommand configures nghttpx by its command line: one worker, no log, connections kept for as long as the measurement lasts.
func nghttpxCommand(b *bench, e *entrant, listen, dir string) ([]string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, err
	}
	front, back := host+","+port, ""
	if !e.lane.TLS() {
		front += ";no-tls"
	}
	if e.lane.SendsHTTP2() {
		back = ";;proto=h2"
	}
	args := []string{
		"--conf=" + filepath.Join(dir, "none"), "--single-process", "--workers=1", "--backlog=4096", "--no-ocsp", "--no-via", "--no-server-rewrite",
		"--frontend-read-timeout=1h", "--frontend-keep-alive-timeout=1h", "--frontend-http2-read-timeout=1h",
		"--backend-read-timeout=1h", "--backend-keep-alive-timeout=1h", "--tls-min-proto-version=TLSv1.3", "--tls-max-proto-version=TLSv1.3",
		"--npn-list=http/1.1", "--frontend=" + front,
	}
	for _, e := range endpointsOf(b.backendAddresses(e.lane)) {
		args = append(args, "--backend="+e.Host+","+e.Port+back)
	}
	if e.lane.TLS() {
		args = append(args, b.identity.Key, b.identity.Cert)
	}
	return args, nil
}
