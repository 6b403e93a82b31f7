package local

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/control"
)

// say tells people.
func (m *Mesh) say(format string, args ...any) {
	_, _ = fmt.Fprintf(m.o.Talk, format, args...) // who cannot be told cannot be told that either
}

// once says what was not said before.
func (m *Mesh) once(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	m.mu.Lock()
	said := m.told[text]
	m.told[text] = true
	m.mu.Unlock()
	if !said {
		m.say("%s", text)
	}
}

// greet tells what was started, and where to try it.
func (m *Mesh) greet(c *control.Change) {
	for _, f := range c.Findings {
		m.say("%s\n", line(f))
	}
	m.saySilent()
	m.sayAnswers(c)
	r := m.Ready()
	meshed := 0
	for _, w := range r.Workloads {
		if w.Outbound != "" {
			meshed++
		}
	}
	m.say("%s, %s, %s\n", counted(len(c.Objects), "object"), counted(meshed, "sidecar"), counted(len(r.Gateways), "gateway"))
	m.say("  page     %s/\n", r.Admin)
	if url := m.example(); url != "" {
		m.say("  try      curl -x %s %s\n", r.Proxy, url)
	} else {
		m.say("  proxy    %s\n", r.Proxy)
	}
	for _, g := range r.Gateways {
		for _, s := range g.Ports() {
			whose := ""
			if h := s.Hosts(); h != "" {
				whose = " for " + h
			}
			m.say("  gateway  %s/%s port %d: %s%s\n", g.Namespace, g.Name, s.Port, s.URL(), whose)
		}
	}
}

// example is a URL that the local client can call; "" where the mesh has none.
func (m *Mesh) example() string {
	for _, s := range m.State().Mesh.Services() {
		for _, p := range s.Ports {
			if !p.Requests || len(p.Workloads) == 0 {
				continue
			}
			host := s.Host
			if s.Name != "" {
				host = s.Name
				if s.Namespace != "default" {
					host += "." + s.Namespace
				}
			}
			if p.Port == 80 {
				return "http://" + host + "/"
			}
			return "http://" + net.JoinHostPort(host, strconv.Itoa(p.Port)) + "/"
		}
	}
	return ""
}

// report tells what a change did.
func (m *Mesh) report(c *control.Change) {
	if c.Nothing() {
		return
	}
	for _, o := range c.Objects {
		m.say("%s %s\n", o.What, object(o.Object))
	}
	for _, f := range c.Findings {
		m.say("%s\n", line(f))
	}
	for _, o := range c.Kept {
		m.once("kept %s: its last good version stays in force\n", object(o))
	}
	m.saySilent()
	m.sayAnswers(c)
	if n := len(c.Removed); n > 0 {
		m.say("%s drained: %s\n", counted(n, "sidecar is", "sidecars are"), short(c.Removed))
	}
}

// sayAnswers tells how the proxies took a change.
func (m *Mesh) sayAnswers(c *control.Change) {
	if n := len(c.Applied); n > 0 && c.Generation > 1 {
		m.say("%s a new configuration: %s\n", counted(n, "sidecar has", "sidecars have"), short(c.Applied))
	}
	for _, r := range c.Refused {
		m.say("error: %s runs on with its configuration before: it refused the new one: %s\n", r.Key, r.Reason)
	}
	if n := len(c.Pending); n > 0 {
		m.say("warning: %s not answered yet: %s\n", counted(n, "sidecar has", "sidecars have"), short(c.Pending))
	}
}

func (m *Mesh) saySilent() {
	if m.o.StandIns {
		return
	}
	for _, w := range m.silent() {
		m.once("warning: workload %s has no endpoint: nobody plays its application; --stand-ins lets a built-in one, --app %s=HOST:PORT says where it runs\n", w, w)
	}
}

func line(f config.Finding) string { return string(f.Severity) + ": " + f.String() }

func object(o *config.Object) string {
	name := o.Name
	if o.Namespace != "" {
		name = o.Namespace + "/" + name
	}
	return fmt.Sprintf("%s %s (%s:%d)", o.Kind, name, o.Source.File, o.Source.Line)
}

// counted writes a number with its noun; the plural is the second one, or the first with an s.
func counted(n int, nouns ...string) string {
	noun := nouns[0]
	if n != 1 {
		if noun += "s"; len(nouns) > 1 {
			noun = nouns[1]
		}
	}
	return strconv.Itoa(n) + " " + noun
}

// short lists a few of many.
func short(names []string) string {
	if len(names) > 6 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", len(names)-5)
	}
	return strings.Join(names, ", ")
}
