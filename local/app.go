package local

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// ErrInput marks errors that the caller's input caused: a wrong option, or a file that is not there.
var ErrInput = errors.New("wrong input")

// App says where the application of a workload runs already: --app.
type App struct {
	Namespace, Workload string
	// Port is the workload's port; 0 is the port of the same number as the application's if the workload has it, else its first.
	Port int
	// Addresses are host:port, one for each instance.
	Addresses []string
}

// ParseApp reads [NAMESPACE/]WORKLOAD[:PORT]=HOST:PORT[,HOST:PORT]; a workload that names no namespace is in namespace.
func ParseApp(text, namespace string) (App, error) {
	fail := func(what string) (App, error) {
		return App{}, fmt.Errorf("%w: cannot read --app %q: %s; write [NAMESPACE/]WORKLOAD[:PORT]=HOST:PORT[,HOST:PORT]", ErrInput, text, what)
	}
	name, addresses, ok := strings.Cut(text, "=")
	if !ok {
		return fail(`there is no "="`)
	}
	a := App{Namespace: namespace}
	if ns, rest, ok := strings.Cut(name, "/"); ok {
		a.Namespace, name = ns, rest
	}
	if workload, port, ok := strings.Cut(name, ":"); ok {
		n, err := strconv.Atoi(port)
		if err != nil || n < 1 || n > 65535 {
			return fail(fmt.Sprintf("%q is not a port", port))
		}
		name, a.Port = workload, n
	}
	if a.Workload = name; name == "" || a.Namespace == "" || strings.Contains(name, "/") {
		return fail("there is no workload's name")
	}
	for addr := range strings.SplitSeq(addresses, ",") {
		addr = strings.TrimSpace(addr)
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return fail(fmt.Sprintf("%q is not HOST:PORT", addr))
		}
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || host == "" {
			return fail(fmt.Sprintf("%q is not HOST:PORT", addr))
		}
		a.Addresses = append(a.Addresses, addr)
	}
	return a, nil
}

// port returns the workload's port that a is for, 0 where the workload has no such port.
func (a *App) port(serves []int) int {
	if a.Port != 0 || len(serves) == 0 {
		for _, p := range serves {
			if p == a.Port {
				return p
			}
		}
		return 0
	}
	_, own, _ := net.SplitHostPort(a.Addresses[0])
	for _, p := range serves {
		if strconv.Itoa(p) == own {
			return p
		}
	}
	return serves[0]
}

// String writes a as ParseApp reads it.
func (a *App) String() string {
	port := ""
	if a.Port != 0 {
		port = ":" + strconv.Itoa(a.Port)
	}
	return a.Namespace + "/" + a.Workload + port + "=" + strings.Join(a.Addresses, ",")
}
