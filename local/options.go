package local

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	meshv1alpha1 "istio.io/api/mesh/v1alpha1"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy"
)

// Where people find the mesh on one machine unless they say otherwise.
const (
	DefaultAdmin = "127.0.0.1:15000"
	DefaultProxy = "127.0.0.1:15001"
)

// Options shape the mesh on one machine. Zero fields take the defaults that are named.
type Options struct {
	// Paths are files and directories of objects; "-" is standard input, which is read once.
	Paths []string
	// Stdin is what "-" reads; os.Stdin where nil.
	Stdin io.Reader
	// Namespace is for objects that name none; "default".
	Namespace string
	// MeshConfig replaces the ConfigMap istio in istio-system.
	MeshConfig *meshv1alpha1.MeshConfig
	// StandIns lets built-in applications play the workloads whose application does not run here.
	StandIns bool
	// Apps say where applications run already.
	Apps []App
	// MaxReplicas bounds the instances of a template; 3.
	MaxReplicas int
	// Admin and Proxy are host:port of the admin address and of the local client's outbound proxy; port 0 takes a free one.
	Admin, Proxy string
	// Locality is where the local client is.
	Locality model.Locality
	// Limits bound what clients may ask of each proxy: sidecars, gateways and the local client's.
	Limits proxy.Limits
	// ExecProbes lets the sidecars run the commands of WorkloadGroups' probes, as the user who runs the mesh.
	ExecProbes bool
	// ReadyFile is written once everything listens, and again where that changes; "" writes none.
	ReadyFile string
	// NoPrometheus leaves the embedded Prometheus out.
	NoPrometheus bool
	// ScrapeInterval is how often everything is scraped; 1 s.
	ScrapeInterval time.Duration
	// Data is the directory that keeps samples between runs; "" keeps none.
	Data string
	// Version is the build's, for metrics and the page.
	Version string
	// Talk is where people are told what happens; nil tells nobody.
	Talk io.Writer
	// Out takes the access logs of all sidecars whose accessLogFile is /dev/stdout; os.Stdout where nil.
	Out io.Writer
	// Log hears what operators debug with; nil is silent.
	Log *slog.Logger
}

// sharedWriter lets several sidecars write whole batches of lines to one writer.
type sharedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// Write writes p as a whole before anybody else's.
func (s *sharedWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

func (o Options) orDefault() Options {
	if o.Namespace == "" {
		o.Namespace = "default"
	}
	if o.MaxReplicas == 0 {
		o.MaxReplicas = defaultReplicas
	}
	if o.Admin == "" {
		o.Admin = DefaultAdmin
	}
	if o.Proxy == "" {
		o.Proxy = DefaultProxy
	}
	if o.ScrapeInterval == 0 {
		o.ScrapeInterval = time.Second
	}
	if o.Talk == nil {
		o.Talk = io.Discard
	}
	if o.Out != nil {
		o.Out = &sharedWriter{w: o.Out}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// check reports what is wrong with o, as far as it can be seen without the objects.
func (o *Options) check() error {
	for flag, addr := range map[string]string{"--admin": o.Admin, "--proxy": o.Proxy} {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return fmt.Errorf("%w: cannot read %s %q: %w; write HOST:PORT", ErrInput, flag, addr, err)
		}
		if host == "" {
			return fmt.Errorf("%w: cannot use %s %q: it names no host; write 127.0.0.1%s", ErrInput, flag, addr, addr)
		}
	}
	if o.MaxReplicas < 1 {
		return fmt.Errorf("%w: cannot run at most %d instances of a workload; --max-replicas is at least 1", ErrInput, o.MaxReplicas)
	}
	type target struct {
		namespace, workload string
		port                int
	}
	seen := map[target]string{}
	for i := range o.Apps {
		a := &o.Apps[i]
		at := target{a.Namespace, a.Workload, a.Port}
		if other := seen[at]; other != "" {
			return fmt.Errorf("%w: --app %s and --app %s are for the same; give all addresses in one, with commas", ErrInput, other, a.String())
		}
		seen[at] = a.String()
	}
	return nil
}
