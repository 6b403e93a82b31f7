package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// The demo's WebSocket, and how often it says something.
const (
	demoSocket  = "ws://storefront:8080/updates"
	socketEvery = 200 * time.Millisecond
)

// socket keeps a WebSocket open through the client's proxy, and now and then sends a message, which the other side sends back.
type socket struct {
	client *http.Client

	mu       sync.Mutex
	messages []said
	why      error // of a message that did not come back
}

// said is what became of one message.
type said struct {
	at   time.Time
	took time.Duration // there and back; negative where it did not come back
}

// mostMessages is a day of them; then the older half is forgotten.
const mostMessages = 1 << 19

func newSocket(proxy string) *socket {
	return &socket{client: &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxy})}}}
}

// run talks until ctx ends. A WebSocket that breaks is opened again.
func (s *socket) run(ctx context.Context) {
	defer s.client.CloseIdleConnections()
	pace := time.NewTicker(socketEvery)
	defer pace.Stop()
	for ctx.Err() == nil {
		if err := s.talk(ctx, pace.C); err != nil && ctx.Err() == nil {
			s.note(-1, err)
		}
		select {
		case <-ctx.Done():
		case <-pace.C:
		}
	}
}

// talk opens a WebSocket and sends messages through it until one does not come back or ctx ends, which closes it in order.
func (s *socket) talk(ctx context.Context, pace <-chan time.Time) error {
	opening, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, res, err := websocket.Dial(opening, demoSocket, &websocket.DialOptions{HTTPClient: s.client})
	if err != nil {
		if res != nil {
			err = fmt.Errorf("%s is answered %s", demoSocket, res.Status)
		}
		return err
	}
	defer func() { _ = conn.CloseNow() }() // says only that it was closed before
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return conn.Close(websocket.StatusNormalClosure, "")
		case <-pace:
		}
		began := time.Now()
		if err := exchange(conn, strconv.Itoa(n)); err != nil {
			return err
		}
		s.note(time.Since(began), nil)
	}
}

// exchange sends a message and waits until it has come back.
func exchange(conn *websocket.Conn, message string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := conn.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
		return err
	}
	_, got, err := conn.Read(ctx)
	if err == nil && string(got) != message {
		err = errors.New("the message that came back is another")
	}
	return err
}

func (s *socket) note(took time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.why = err
	}
	if len(s.messages) == mostMessages {
		s.messages = append(s.messages[:0], s.messages[mostMessages/2:]...)
	}
	s.messages = append(s.messages, said{time.Now(), took})
}

// measure is how the messages of the last seconds fared, as a service's requests are shown.
func (s *socket) measure(now time.Time, over time.Duration) serviceView {
	s.mu.Lock()
	from, _ := slices.BinarySearchFunc(s.messages, now.Add(-over), func(s said, t time.Time) int { return s.at.Compare(t) })
	messages := slices.Clone(s.messages[from:])
	s.mu.Unlock()
	var took []time.Duration
	for _, m := range messages {
		if m.took >= 0 {
			took = append(took, m.took)
		}
	}
	slices.Sort(took)
	return serviceView{
		name: "WebSocket", rate: float64(len(messages)) / over.Seconds(), success: ratio(len(took), len(messages)),
		p50: quantile(took, 0.5), p99: quantile(took, 0.99),
	}
}

// quantile is of sorted times, in milliseconds; NaN where there are none.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return ratio(0, 0)
	}
	return sorted[int(q*float64(len(sorted)-1))].Seconds() * 1000
}

// result is how many messages were sent, how many did not come back, and one reason.
func (s *socket) result() (sent, failed int, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.messages {
		if m.took < 0 {
			failed++
		}
	}
	return len(s.messages), failed, s.why
}
