package local

import (
	"context"
	"errors"
	"fmt"
	"net"
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

// sidecar is one running proxy: it follows the feed, asks its application whether it is ready where it is to, and answers
// on a port of its own who asks for its metrics.
type sidecar struct {
	key     string
	proxy   *proxy.Proxy
	metrics *telemetry.Metrics
	feed    *feed.Subscription
	prober  *probe.Prober
	server  *admin.Server

	stop    context.CancelFunc
	running sync.WaitGroup
}

// startSidecar starts the proxy that f's key is for: its metrics at metrics, the rest from its first snapshot on, by
// listen. ready says that its application is taken for ready until it fails its probe; changed hears when that changes. Of o
// it takes what proxies have in common.
func startSidecar(f *feed.Feed, key string, self model.Peer, metrics net.Listener, listen func(string) (net.Listener, error), ready bool, changed func(key string, c probe.Change), o *Options) *sidecar {
	log := o.Log.With("proxy", key)
	m := telemetry.New(self, telemetry.Options{Version: o.Version, Log: log})
	p := proxy.New(proxy.Options{Log: log, Metrics: m, Listen: listen, Limits: o.Limits, Streams: proxy.Streams{Stdout: o.Out}})
	server := admin.Serve(metrics, admin.New(admin.Options{Metrics: m, Ready: p.Ready, Stream: dashboard.NewStream(p, proxy.Now, log), Log: log}), log)
	asks := probe.New(probe.Options{Ready: ready, Exec: o.ExecProbes, Changed: func(c probe.Change) { changed(key, c) }, Log: log})
	if err := m.Register(asks); err != nil {
		log.Warn("metrics of the application's probe are missing", "reason", err.Error())
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &sidecar{key: key, metrics: m, proxy: p, feed: f.Subscribe(key), prober: asks, server: server, stop: stop}
	s.running.Go(func() { s.follow(ctx) }) // drain waits for both
	s.running.Go(func() { asks.Run(ctx) })
	return s
}

// follow applies what the feed brings, and answers it.
func (s *sidecar) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.feed.C():
		}
		latest := s.feed.Latest()
		if latest == nil {
			continue
		}
		s.metrics.SetSelf(latest.Workload.Peer) // the labels of a template that was edited
		if err := s.proxy.Apply(latest); err != nil {
			s.feed.Nack(latest.Version, err.Error())
			continue
		}
		s.prober.Configure(latest.Workload.Probe)
		s.feed.Ack(latest.Version)
	}
}

// leave stops following the feed: the sidecar runs on with what it has.
func (s *sidecar) leave() {
	s.stop()
	s.feed.Close()
}

// drain ends the sidecar: what is under way may end until ctx does, the rest is cut off. Its metrics end last.
func (s *sidecar) drain(ctx context.Context) error {
	s.leave()
	err := s.proxy.Drain(ctx)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("cannot drain %s in time: exchanges were cut off", s.key)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // a scrape under way may end
	defer cancel()
	_ = s.server.Close(ctx) // a scrape that was cut off is no exchange
	s.running.Wait()
	return err
}
