// Package admin is the debug HTTP surface of one sidecar: metrics, readiness, what it runs and where it sends.
package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
)

// Options say what is served; what is nil is not there. Everything is called at any time from any goroutine.
//
// Metrics, Ready and Stream are for everybody's eyes (:15020). Snapshot and Clusters tell how the mesh is built: whoever serves
// them listens on a loopback address (:15000).
type Options struct {
	Metrics *telemetry.Metrics // /stats/prometheus
	// Ready returns nil, or why the sidecar cannot serve yet or any more: /healthz/ready.
	Ready func() error
	// Snapshot returns what is in force, nil before the first: /config_dump.
	Snapshot func() *model.Snapshot
	Clusters func() []ClusterStatus // /clusters
	Stream   http.Handler           // /hystrix.stream
	Log      *slog.Logger           // nil is slog.Default
}

// ClusterStatus is a cluster as it is at this moment.
type ClusterStatus struct {
	Name   string       `json:"name"`
	Policy model.Policy `json:"policy,omitempty"`
	// Panic says that endpoints are asked though they are ejected or not ready, as too few others are there (minHealthPercent).
	Panic     bool             `json:"panic,omitempty"`
	Endpoints []EndpointStatus `json:"endpoints"`
}

// EndpointStatus is one endpoint of a cluster, with what goes on there.
type EndpointStatus struct {
	Address  string         `json:"address"`
	Instance string         `json:"instance,omitempty"`
	Weight   uint32         `json:"weight"`
	Locality model.Locality `json:"locality,omitzero"`
	Active   int64          `json:"active"` // requests under way
	// Busy and Idle are open connections that a request holds, and that wait for one.
	Busy int `json:"busy"`
	Idle int `json:"idle"`
	// Opened and Failed count connections since the endpoint is known.
	Opened uint64 `json:"opened"`
	Failed uint64 `json:"failed"`
	// Ejected says that outlier detection, or failure accrual, has it rest.
	Ejected bool `json:"ejected,omitempty"`
	// Reason is what it was ejected for, as outrider_endpoint_ejected says it.
	Reason string `json:"reason,omitempty"`
	// Until is the earliest at which it may be asked again, zero where that is not known.
	Until time.Time `json:"until,omitzero"`
	// Unready says that its application does not pass its probe.
	Unready bool `json:"unready,omitempty"`
}

// New returns the handler of what o holds. It answers GET and HEAD only, and changes nothing.
func New(o Options) http.Handler {
	s := surface{o}
	if s.Log == nil {
		s.Log = slog.Default()
	}
	mux := http.NewServeMux()
	if o.Metrics != nil {
		mux.Handle("GET /stats/prometheus", o.Metrics.Handler())
	}
	if o.Ready != nil {
		mux.HandleFunc("GET /healthz/ready", s.ready)
	}
	if o.Snapshot != nil {
		mux.HandleFunc("GET /config_dump", s.dump)
	}
	if o.Stream != nil {
		mux.Handle("GET /hystrix.stream", o.Stream)
	}
	if o.Clusters != nil {
		mux.HandleFunc("GET /clusters", s.clusters)
	}
	return mux
}

type surface struct{ Options }

func (s surface) ready(w http.ResponseWriter, _ *http.Request) {
	status, text := http.StatusOK, "ready"
	if err := s.Ready(); err != nil {
		status, text = http.StatusServiceUnavailable, err.Error()
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	s.write(w, []byte(text+"\n"))
}

// dump writes the snapshot in the form that `outrider compile` prints, without what is secret.
func (s surface) dump(w http.ResponseWriter, _ *http.Request) {
	snapshot := s.Snapshot()
	if snapshot == nil {
		http.Error(w, "no snapshot is in force yet", http.StatusServiceUnavailable)
		return
	}
	s.writeJSON(w, Redact(snapshot))
}

// flags are Envoy's names for what keeps an endpoint from being asked.
func (e *EndpointStatus) flags() string {
	switch {
	case e.Ejected && e.Unready:
		return "/failed_active_hc/failed_outlier_check"
	case e.Ejected:
		return "/failed_outlier_check"
	case e.Unready:
		return "/failed_active_hc"
	}
	return "healthy"
}

// clusters writes lines of cluster::address::what::value, as Envoy does, or with ?format=json everything as JSON.
func (s surface) clusters(w http.ResponseWriter, r *http.Request) {
	clusters := s.Clusters()
	switch r.FormValue("format") {
	case "json":
		if clusters == nil {
			clusters = []ClusterStatus{}
		}
		s.writeJSON(w, clusters)
		return
	case "", "text":
	default:
		http.Error(w, "format is text or json", http.StatusBadRequest)
		return
	}
	var b bytes.Buffer
	for _, c := range clusters {
		if c.Policy != "" {
			fmt.Fprintf(&b, "%s::policy::%s\n", c.Name, c.Policy)
		}
		if c.Panic {
			fmt.Fprintf(&b, "%s::panic::true\n", c.Name)
		}
		for _, e := range c.Endpoints {
			line := func(what string, value any) { fmt.Fprintf(&b, "%s::%s::%s::%v\n", c.Name, e.Address, what, value) }
			line("health_flags", e.flags())
			if e.Ejected {
				line("ejected", e.Reason)
				if !e.Until.IsZero() {
					line("ejected_until", e.Until.Format(time.RFC3339))
				}
			}
			line("weight", e.Weight)
			line("rq_active", e.Active)
			line("cx_active", e.Busy+e.Idle)
			line("cx_total", e.Opened)
			line("cx_connect_fail", e.Failed)
			if e.Instance != "" {
				line("hostname", e.Instance)
			}
			if e.Locality != (model.Locality{}) {
				line("region", e.Locality.Region)
				line("zone", e.Locality.Zone)
				line("sub_zone", e.Locality.SubZone)
			}
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	s.write(w, b.Bytes())
}

func (s surface) writeJSON(w http.ResponseWriter, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.Log.Error("cannot encode an answer", "reason", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	s.write(w, append(b, '\n'))
}

func (s surface) write(w http.ResponseWriter, b []byte) {
	if _, err := w.Write(b); err != nil {
		s.Log.Debug("cannot write an answer", "reason", err)
	}
}

// Server serves a handler on an address of its own, with bounds on what one client can hold.
type Server struct {
	listener net.Listener
	http     *http.Server
	serving  sync.WaitGroup
	end      context.CancelFunc // ends answers that have no end of their own
}

// Listen serves h at address (host:port; port 0 takes a free one) until Close.
func Listen(address string, h http.Handler, log *slog.Logger) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot serve metrics and health at %s: %w", address, err)
	}
	return Serve(l, h, log), nil
}

// Serve serves h at l, which it closes, until Close.
func Serve(l net.Listener, h http.Handler, log *slog.Logger) *Server {
	if log == nil {
		log = slog.Default()
	}
	ctx, end := context.WithCancel(context.Background())
	s := &Server{listener: l, end: end, http: &http.Server{
		BaseContext:       func(net.Listener) context.Context { return ctx },
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute, // the longest that Prometheus would wait for a scrape
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
	s.serving.Go(func() {
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics and health are no longer served", "reason", err)
		}
	})
	return s
}

// Address returns where it listens, as host:port.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Close stops listening, ends streams, and waits for other answers under way until ctx ends, which cuts them off.
func (s *Server) Close(ctx context.Context) error {
	s.end()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	s.serving.Wait()
	if err != nil {
		return fmt.Errorf("cannot end the admin server in time: %w", err)
	}
	return nil
}
