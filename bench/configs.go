//go:build linux

package main

import (
	"bytes"
	"embed"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"text/template"
)

//go:embed configs
var configFiles embed.FS

var configTemplates = template.Must(template.ParseFS(configFiles, "configs/*.tmpl"))

// site is what a configuration is rendered from.
type site struct {
	meshConfig
	endpoint       // where to listen, in two parts
	Listen         string
	Dir            string // for files of the proxy's own
	Backends       []string
	Endpoints      []endpoint // the same in two parts
	Operation      string     // what spans of the mesh would be called
	Files          int        // open files allowed
	MaxConnections int        // clients and backends together
	Pool           int        // idle connections to the backends to keep
}

// rendered returns a command function that fills the template of a configuration file and passes the file after args.
func rendered(file string, args ...string) func(*bench, *peer, string, string) ([]string, error) {
	return func(b *bench, _ *peer, listen, dir string) ([]string, error) {
		text, err := render(file, b.backend.Addresses(), listen, dir, b.files)
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

func render(file string, backends []string, listen, dir string, files int) ([]byte, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, err
	}
	s := site{
		meshConfig: newMesh(backends), endpoint: endpoint{host, port}, Listen: listen, Dir: dir, Backends: backends,
		Endpoints: endpointsOf(backends), Operation: serviceHost + ".default.svc.cluster.local:" + servicePort + "/*",
		Files: files, MaxConnections: 4096, Pool: 512,
	}
	var text bytes.Buffer
	if err := configTemplates.ExecuteTemplate(&text, file+".tmpl", s); err != nil {
		return nil, fmt.Errorf("cannot write %s: %w", file, err)
	}
	return text.Bytes(), nil
}
