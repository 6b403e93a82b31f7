package dashboard

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/proxy/breaker"
)

// Hystrix's own: hystrix.stream.dashboard.intervalInMilliseconds and hystrix.config.stream.maxConcurrentConnections.
const (
	streamInterval = 500 * time.Millisecond
	streamClients  = 5
)

// patience is how long a client may take to read what was written: the stream is for those who look.
const patience = 10 * time.Second

// Stream answers /hystrix.stream: server-sent events without end, one for each command every half second, and a ping.
type Stream struct {
	source  Source
	clock   func() int64
	log     *slog.Logger
	clients atomic.Int32
	end     chan struct{} // closed by Close
	closing sync.Once
}

// NewStream returns a stream of the breakers of s, whose instants are those of clock. A nil log is slog.Default.
func NewStream(s Source, clock func() int64, log *slog.Logger) *Stream {
	if log == nil {
		log = slog.Default()
	}
	return &Stream{source: s, clock: clock, log: log, end: make(chan struct{})}
}

// Close ends all streams, as answers that are complete; from then on clients are answered 503, as by Hystrix that shuts down.
func (s *Stream) Close() { s.closing.Do(func() { close(s.end) }) }

// ServeHTTP writes until the client leaves, the stream is closed, or the request's context ends, as a server's that shuts
// down should. A sixth client at a time is answered 503.
func (s *Stream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-s.end:
		http.Error(w, "the stream has ended: this process shuts down", http.StatusServiceUnavailable)
		return
	default:
	}
	if s.clients.Add(1) > streamClients {
		s.clients.Add(-1)
		http.Error(w, fmt.Sprintf("MaxConcurrentConnections reached: %d", streamClients), http.StatusServiceUnavailable)
		return
	}
	defer s.clients.Add(-1)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream;charset=UTF-8")
	h.Set("Cache-Control", "no-cache, no-store, max-age=0, must-revalidate")
	h.Set("Pragma", "no-cache")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	out := http.NewResponseController(w)
	if err := out.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return // the client is gone
	} // a server's ReadTimeout would end the request's context
	tick := time.NewTicker(streamInterval)
	defer tick.Stop()
	var b []byte
	var shown view
	for {
		b = append(shown.append(b[:0], s.source, s.clock(), time.Now().UnixMilli()), "ping: \n\n"...)
		err := out.SetWriteDeadline(time.Now().Add(patience))
		if err == nil || errors.Is(err, http.ErrNotSupported) {
			_, err = w.Write(b)
		}
		if err == nil {
			err = out.Flush()
		}
		if err != nil {
			s.log.Debug("a client of /hystrix.stream is gone", "peer", r.RemoteAddr, "reason", err)
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-s.end:
			return
		case <-tick.C:
		}
	}
}

// view is what one client is shown.
type view struct {
	commands []command       // of the last tick
	cards    map[card]uint64 // what is on the page, with the tick in which it was last told of
	tick     uint64
}

// card is one thing on the dashboard's page.
type card struct{ kind, name string }

// append appends the events of one tick: the commands, the pools, and what has gone since the last tick where a stream
// tells of several clients. Otherwise a card would stay as it was, for good. What a single process tells goes to Turbine,
// which knows no such events, and drops what a process had as its stream ends.
func (v *view) append(b []byte, s Source, now, at int64) []byte {
	v.commands = concerned(read(v.commands[:0], s, now))
	b = appendEvents(b, v.commands, at)
	if v.cards == nil {
		v.cards = map[card]uint64{}
	}
	v.tick++
	for i := range v.commands {
		c := &v.commands[i]
		if c.Client == "" {
			continue
		}
		v.cards[card{"HystrixCommand", c.title}] = v.tick
		if c.Settings.Strategy == breaker.Thread {
			v.cards[card{"HystrixThreadPool", c.pool()}] = v.tick
		}
	}
	for c, tick := range v.cards {
		if tick != v.tick {
			b = append(appendGone(append(b, "data: "...), c.kind, c.name, at), "\n\n"...)
			delete(v.cards, c)
		}
	}
	return b
}

// appendEvents appends the events of commands, then of their pools.
func appendEvents(b []byte, commands []command, at int64) []byte {
	for i := range commands {
		b = append(appendCommand(append(b, "data: "...), &commands[i], at), "\n\n"...)
	}
	all := pools(commands)
	for i := range all {
		b = append(appendPool(append(b, "data: "...), &all[i], at), "\n\n"...)
	}
	return b
}
