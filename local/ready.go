package local

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Ready is what the ready file says: where everything listens. Its JSON form is a contract.
type Ready struct {
	Admin     string          `json:"admin"` // http://host:port
	Proxy     string          `json:"proxy"` // host:port
	Workloads []ReadyWorkload `json:"workloads"`
	Gateways  []ReadyGateway  `json:"gateways"`
}

// ReadyWorkload is one instance. Outbound and Metrics are empty where it has no sidecar.
type ReadyWorkload struct {
	Namespace string      `json:"namespace"`
	Name      string      `json:"name"`
	Instance  string      `json:"instance"`
	Address   string      `json:"address"`
	Outbound  string      `json:"outbound"`
	Metrics   string      `json:"metrics"`
	Inbound   []ReadyPort `json:"inbound"`
}

// ReadyPort is one port of an instance whose application is known.
type ReadyPort struct {
	Port    int    `json:"port"`   // the workload's
	Listen  string `json:"listen"` // where others dial
	App     string `json:"app"`    // where the application is
	StandIn bool   `json:"standIn"`
}

// ReadyGateway is one Gateway object.
type ReadyGateway struct {
	Namespace string        `json:"namespace"`
	Name      string        `json:"name"`
	Servers   []ReadyServer `json:"servers"`
}

// ReadyServer is one server of a Gateway object.
type ReadyServer struct {
	Port     int    `json:"port"` // as configured
	Listen   string `json:"listen"`
	Protocol string `json:"protocol"`

	hosts []string
}

// Ports are the gateway's servers for people: those of one port that are reached in the same way are one.
func (g ReadyGateway) Ports() []ReadyServer {
	var out []ReadyServer
	for _, s := range g.Servers {
		i := slices.IndexFunc(out, func(o ReadyServer) bool { return o.Port == s.Port && o.URL() == s.URL() })
		if i < 0 {
			i = len(out)
			out = append(out, ReadyServer{Port: s.Port, Listen: s.Listen, Protocol: s.Protocol})
		}
		for _, h := range s.hosts {
			if !slices.Contains(out[i].hosts, h) {
				out[i].hosts = append(out[i].hosts, h)
			}
		}
	}
	return out
}

// Hosts says for whom the server is; "" is anyone.
func (s ReadyServer) Hosts() string {
	if slices.Contains(s.hosts, "*") {
		return ""
	}
	return short(s.hosts)
}

// URL is how a browser or client reaches the server: with a scheme where it takes requests, else the address alone.
func (s ReadyServer) URL() string {
	switch model.Protocol(s.Protocol) {
	case model.HTTP, model.HTTP2, model.GRPC:
		return "http://" + s.Listen + "/"
	case model.HTTPS:
		return "https://" + s.Listen + "/"
	}
	return s.Listen + " (" + s.Protocol + ")"
}

// Link says whether URL is one that a browser can follow.
func (s ReadyServer) Link() bool { return strings.HasPrefix(s.URL(), "http") }

// describe tells where everything of the plan listens.
func (p *plan) describe(admin, client string) *Ready {
	out := &Ready{Admin: "http://" + admin, Proxy: client, Workloads: []ReadyWorkload{}, Gateways: []ReadyGateway{}}
	for _, in := range p.instances {
		w := ReadyWorkload{
			Namespace: in.Namespace, Name: in.Workload, Instance: in.Name, Address: in.Address,
			Outbound: in.Outbound, Metrics: in.metrics, Inbound: []ReadyPort{},
		}
		for _, port := range in.Ports {
			if port.App != "" {
				w.Inbound = append(w.Inbound, ReadyPort{Port: port.Port, Listen: port.Listen, App: port.App, StandIn: in.standIn})
			}
		}
		out.Workloads = append(out.Workloads, w)
	}
	for i := range p.gateways {
		g := &p.gateways[i]
		for _, ref := range g.Objects {
			row := ReadyGateway{Namespace: ref.Namespace, Name: ref.Name, Servers: []ReadyServer{}}
			for _, s := range ref.Servers {
				if listen := g.listen[s.Port]; listen != "" {
					row.Servers = append(row.Servers, ReadyServer{Port: s.Port, Listen: listen, Protocol: string(s.Protocol), hosts: s.Hosts})
				}
			}
			out.Gateways = append(out.Gateways, row)
		}
	}
	return out
}

// write makes path hold r, whole or not at all, and does nothing where it does already.
func (r *Ready) write(path string) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("cannot write ready file: %w", err)
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, b.Bytes()) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("cannot write ready file: %w", err)
	}
	_, err = tmp.Write(b.Bytes())
	if e := tmp.Chmod(0o644); err == nil {
		err = e
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("cannot write ready file: %w", err)
	}
	return nil
}
