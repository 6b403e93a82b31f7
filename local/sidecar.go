package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/outrider-mesh/outrider/mesh/feed"
	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy"
)

// sidecar is one running proxy: it follows the feed, and answers on a port of its own who asks for its metrics.
type sidecar struct {
	key     string
	proxy   *proxy.Proxy
	metrics *telemetry.Metrics
	feed    *feed.Subscription
	server  *http.Server
	addr    string // where the metrics are: host:port

	stop    context.CancelFunc
	running sync.WaitGroup
}

// startSidecar starts the proxy that f's key is for. It listens, but for its metrics, from its first snapshot on.
func startSidecar(f *feed.Feed, key string, self model.Peer, metrics, version string, log *slog.Logger) (*sidecar, error) {
	l, err := net.Listen("tcp", metrics)
	if err != nil {
		return nil, fmt.Errorf("cannot serve the metrics of %s: %w", key, err)
	}
	log = log.With("proxy", key)
	m := telemetry.New(self, telemetry.Options{Version: version, Log: log})
	ctx, stop := context.WithCancel(context.Background())
	s := &sidecar{
		key: key, metrics: m, proxy: proxy.New(proxy.Options{Log: log, Metrics: m}), feed: f.Subscribe(key),
		addr: l.Addr().String(), stop: stop,
	}
	mux := http.NewServeMux()
	mux.Handle("GET /stats/prometheus", m.Handler())
	mux.HandleFunc("GET /healthz/ready", s.ready)
	s.server = &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	s.running.Go(func() { _ = s.server.Serve(l) }) // ends with ErrServerClosed
	s.running.Go(func() { s.follow(ctx) })
	return s, nil
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
		s.feed.Ack(latest.Version)
	}
}

func (s *sidecar) ready(w http.ResponseWriter, _ *http.Request) {
	if s.proxy.Snapshot() == nil {
		http.Error(w, "no configuration yet", http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ready\n")
}

// drain ends the sidecar: what is under way may end until ctx does, the rest is cut off. Its metrics end last.
func (s *sidecar) drain(ctx context.Context) error {
	s.stop()
	s.feed.Close()
	err := s.proxy.Drain(ctx)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("cannot drain %s in time: exchanges were cut off", s.key)
	}
	err = errors.Join(err, s.server.Close())
	s.running.Wait()
	return err
}
