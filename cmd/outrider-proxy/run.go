package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/outrider-mesh/outrider/mesh/admin"
	"github.com/outrider-mesh/outrider/mesh/feed"
	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/probe"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy"
	"github.com/outrider-mesh/outrider/proxy/dashboard"
)

// Exit codes, as every verb of Outrider has them.
const (
	exitOK       = 0
	exitUsage    = 2
	exitInternal = 3
)

// defaultDrain is how long a proxy that was told to end waits for exchanges under way (Istio's terminationDrainDuration).
const defaultDrain = 5 * time.Second

type options struct {
	snapshot, admin, ready string
	limits                 proxy.Limits
	execProbes             bool
}

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	verb := ""
	if len(args) > 0 {
		verb = args[0]
	}
	switch {
	case verb == "":
		fmt.Fprint(errs, usage)
		return exitUsage
	case verb == "version" && len(args) == 1:
		fmt.Fprintln(out, version())
		return exitOK
	case verb == "help" || verb == "-h" || verb == "--help":
		fmt.Fprint(out, usage)
		return exitOK
	case verb == "version":
		return fail(errs, fmt.Errorf("unexpected argument %q (version takes none)", args[1]), exitUsage)
	case verb != "run":
		return fail(errs, fmt.Errorf("unknown command %q (outrider-proxy --help lists the commands)", verb), exitUsage)
	}
	var o options
	f := flag.NewFlagSet("outrider-proxy run", flag.ContinueOnError)
	f.SetOutput(io.Discard) // it would print all flags after each error
	f.StringVar(&o.snapshot, "snapshot", "", "the snapshot `FILE` to run, as 'outrider compile' prints it")
	f.StringVar(&o.admin, "admin", "127.0.0.1:15020", "`ADDR` of metrics, health and dumps; port 0 takes a free one")
	f.StringVar(&o.ready, "ready-file", "", "`FILE` to write once everything listens")
	f.BoolVar(&o.execProbes, "allow-exec-probes", false, "run the command of the snapshot's probe on this machine, as this process's user")
	o.limits.Flags(f)
	switch err := f.Parse(args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		f.SetOutput(out)
		f.Usage()
		return exitOK
	case err != nil:
		return fail(errs, fmt.Errorf("%w (outrider-proxy run --help lists the flags)", err), exitUsage)
	case f.NArg() > 0:
		return fail(errs, fmt.Errorf("unexpected argument %q (outrider-proxy run --help lists the flags)", f.Arg(0)), exitUsage)
	case o.snapshot == "":
		return fail(errs, errors.New("run needs --snapshot FILE, which outrider compile prints (outrider-proxy run --help lists the flags)"), exitUsage)
	}
	return serve(ctx, o, errs)
}

// serve runs the snapshot until ctx ends, then drains.
func serve(ctx context.Context, o options, errs io.Writer) int {
	log := slog.New(slog.NewTextHandler(errs, nil))
	source, err := feed.OpenFile(o.snapshot, log)
	if err != nil {
		return fail(errs, err, exitUsage)
	}
	defer source.Close()
	s := source.Latest()
	metrics := telemetry.New(s.Workload.Peer, telemetry.Options{Version: version(), Process: true, Log: log})
	p := proxy.New(proxy.Options{Log: log, Metrics: metrics, Limits: o.limits})
	defer p.Close()
	if err := p.Apply(s); err != nil {
		return fail(errs, fmt.Errorf("cannot run %s: %w", o.snapshot, err), exitUsage)
	}
	<-source.C()
	source.Ack(s.Version)
	server, err := serveAdmin(o.admin, p, metrics, log)
	if err != nil {
		return fail(errs, err, exitUsage)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Close(end)
	}()
	asks := probe.New(probe.Options{Exec: o.execProbes, Log: log}) // there is no control plane to tell: its verdict is in the metrics and the log
	if err := metrics.Register(asks); err != nil {
		return fail(errs, err, exitInternal)
	}
	asks.Configure(s.Workload.Probe)
	if o.ready != "" {
		if err := writeReady(o.ready, p, server.Address()); err != nil {
			return fail(errs, err, exitUsage)
		}
	}
	log.Info("ready", "workload", s.Workload.Namespace+"/"+s.Workload.Name, "admin", server.Address())
	debug.FreeOSMemory() // decoding took several times what the snapshot takes, and a sidecar may be idle from here on
	var asking sync.WaitGroup
	asking.Go(func() { asks.Run(ctx) }) // until ctx ends, as follow
	follow(ctx, source, p, asks)
	asking.Wait()
	return drain(p, errs)
}

// follow applies what the file holds until ctx ends.
func follow(ctx context.Context, source *feed.File, p *proxy.Proxy, asks *probe.Prober) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-source.C():
		}
		s := source.Latest()
		if s.Version == p.Snapshot().Version {
			continue
		}
		if err := p.Apply(s); err != nil {
			source.Nack(s.Version, err.Error())
			continue
		}
		asks.Configure(s.Workload.Probe)
		source.Ack(s.Version)
	}
}

func drain(p *proxy.Proxy, errs io.Writer) int {
	wait := p.Snapshot().Settings.Drain.Std()
	if wait <= 0 {
		wait = defaultDrain
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if err := p.Drain(ctx); err != nil {
		fmt.Fprintf(errs, "outrider-proxy: cut off what was still under way after %s\n", wait)
	}
	return exitOK
}

// serveAdmin serves what the sidecar tells about itself. The address is the operator's choice, loopback by default, so
// the dumps and the profiler are there too.
func serveAdmin(address string, p *proxy.Proxy, m *telemetry.Metrics, log *slog.Logger) (*admin.Server, error) {
	mux := http.NewServeMux()
	mux.Handle("/", admin.New(admin.Options{Metrics: m, Ready: p.Ready, Snapshot: p.Snapshot, Clusters: p.Clusters, Stream: dashboard.NewStream(p, proxy.Now, log), Log: log}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	s, err := admin.Listen(address, mux, log)
	if err != nil {
		return nil, fmt.Errorf("cannot serve --admin: %w", err)
	}
	return s, nil
}

// ready is the ready file: one workload's row of what `outrider up` writes.
type ready struct {
	Admin     string     `json:"admin"`
	Proxy     string     `json:"proxy"`
	Workloads []readyRow `json:"workloads"`
	Gateways  []any      `json:"gateways"`
}

type readyRow struct {
	Namespace string      `json:"namespace"`
	Name      string      `json:"name"`
	Instance  string      `json:"instance"`
	Address   string      `json:"address"`
	Outbound  string      `json:"outbound"`
	Metrics   string      `json:"metrics"`
	Inbound   []readyPort `json:"inbound"`
}

type readyPort struct {
	Port    int    `json:"port"`
	Listen  string `json:"listen"`
	App     string `json:"app"`
	StandIn bool   `json:"standIn"`
}

// writeReady tells where everything listens. The file appears whole.
func writeReady(path string, p *proxy.Proxy, admin string) error {
	s := p.Snapshot()
	w := s.Workload
	row := readyRow{Namespace: w.Namespace, Name: w.Name, Instance: w.Instance, Address: w.Address, Metrics: admin, Inbound: []readyPort{}}
	apps := map[string]string{}
	for _, c := range s.Clusters {
		if c.Kind == model.Application && len(c.Endpoints) > 0 {
			apps[c.Name] = c.Endpoints[0].Address
		}
	}
	for _, l := range s.Listeners {
		switch l.Direction {
		case model.Outbound:
			row.Outbound = p.Address(l.Name)
		case model.Inbound:
			row.Inbound = append(row.Inbound, readyPort{Port: l.Port, Listen: p.Address(l.Name), App: apps[fmt.Sprintf("inbound|%d||", l.Port)]})
		}
	}
	b, err := json.MarshalIndent(ready{Admin: "http://" + admin, Proxy: row.Outbound, Workloads: []readyRow{row}, Gateways: []any{}}, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot write the ready file: %w", err)
	}
	t, err := os.CreateTemp(filepath.Dir(path), ".ready-*")
	if err != nil {
		return fmt.Errorf("cannot write the ready file: %w", err)
	}
	_, err = t.Write(append(b, '\n'))
	if err = errors.Join(err, t.Close()); err == nil {
		err = os.Rename(t.Name(), path)
	}
	if err != nil {
		_ = os.Remove(t.Name())
		return fmt.Errorf("cannot write the ready file: %w", err)
	}
	return nil
}

// version is the build's, as the module system knows it.
func version() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "unknown"
}
