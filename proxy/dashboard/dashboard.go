// Package dashboard tells of a proxy's breakers as Hystrix does: the event stream that its dashboard and Turbine read, and the metrics of its exporters.
//
// It asks for the breakers anew each time, and reads each by its Snapshot: what goes on in the breakers is no slower for
// somebody looking on, but for one short lock each half second.
package dashboard

import (
	"cmp"
	"slices"
	"strings"

	"github.com/outrider-mesh/outrider/proxy/breaker"
)

// Named is a breaker with what people know it by.
type Named struct {
	Namespace, Name string // of its CircuitBreaker
	// Client is the workload whose proxy has it, where a stream tells of several; else empty.
	Client  string
	Group   string // the host that it guards
	Breaker *breaker.Breaker
}

// Source has breakers.
type Source interface {
	// Breakers appends those that are there at this moment. It is called from any goroutine.
	Breakers(dst []Named) []Named
}

// SourceFunc is a Source that is one function.
type SourceFunc func(dst []Named) []Named

// Breakers calls f.
func (f SourceFunc) Breakers(dst []Named) []Named { return f(dst) }

// title is what a command is called: the object's name, with the client if there are several, and with the object's
// namespace where two would be called the same.
func (n *Named) title(whole bool) string {
	title := n.Name
	if whole {
		title = n.Namespace + "/" + n.Name
	}
	if n.Client != "" {
		title += "@" + n.Client
	}
	return title
}

// pool is what the thread pool would be called that the command shares with the others of its client and host: the host
// without its domain, which is the same for all and would fill the dashboard's card.
func (n *Named) pool() string {
	pool, _, _ := strings.Cut(n.Group, ".svc.")
	if n.Client != "" {
		pool += "@" + n.Client
	}
	return pool
}

// command is a breaker as it is at one moment.
type command struct {
	Named
	title string
	breaker.Snapshot
}

// used says that there was a request. In Hystrix, a command is there from its first execution on.
func (c *command) used() bool { return c.Active > 0 || c.Total != [breaker.EventCount]uint64{} }

// concerned returns those commands that somebody who looks at several clients wants to see: where a client of a host has
// used its breaker, those of clients that did not are left out. It reorders nothing, and uses the memory of commands.
func concerned(commands []command) []command {
	type object struct{ namespace, name, group string }
	used := map[object]bool{}
	for i := range commands {
		if c := &commands[i]; c.used() {
			used[object{c.Namespace, c.Name, c.Group}] = true
		}
	}
	return slices.DeleteFunc(commands, func(c command) bool {
		return c.Client != "" && used[object{c.Namespace, c.Name, c.Group}] && !c.used()
	})
}

// read appends all breakers of s as they are now, by title.
func read(dst []command, s Source, now int64) []command {
	all := s.Breakers(nil)
	seen := make(map[string]int, len(all))
	for i := range all {
		seen[all[i].title(false)]++
	}
	for _, n := range all {
		if len(dst) < cap(dst) {
			dst = dst[:len(dst)+1] // its Snapshot's memory is used again
		} else {
			dst = append(dst, command{})
		}
		c := &dst[len(dst)-1]
		c.Named, c.title = n, n.title(seen[n.title(false)] > 1)
		n.Breaker.Snapshot(&c.Snapshot, now)
	}
	slices.SortFunc(dst, func(a, b command) int { return cmp.Compare(a.title, b.title) })
	return dst
}
