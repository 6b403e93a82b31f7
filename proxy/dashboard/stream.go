package dashboard

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"
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
}

// NewStream returns a stream of the breakers of s, whose instants are those of clock. A nil log is slog.Default.
func NewStream(s Source, clock func() int64, log *slog.Logger) *Stream {
	if log == nil {
		log = slog.Default()
	}
	return &Stream{source: s, clock: clock, log: log}
}

// ServeHTTP writes until the client leaves or the request's context ends, as a server's that shuts down should. A sixth
// client at a time is answered 503.
func (s *Stream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
	var commands []command
	var b []byte
	for {
		commands = read(commands[:0], s.source, s.clock())
		b = append(appendEvents(b[:0], commands, time.Now().UnixMilli()), "ping: \n\n"...)
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
		case <-tick.C:
		}
	}
}

// appendEvents appends the events of one tick: the commands, then the pools.
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
