package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// resetCodes are the words of a resets' script that end a stream.
var resetCodes = map[string]http2.ErrCode{
	"refused": http2.ErrCodeRefusedStream, "cancel": http2.ErrCodeCancel, "internal": http2.ErrCodeInternal, "calm": http2.ErrCodeEnhanceYourCalm,
	"protocol": http2.ErrCodeProtocol, "none": http2.ErrCodeNo,
}

// resets is an application of HTTP/2 that does what a request's field x-script says, one word for each attempt, the last one for
// all that follow: a status, one of resetCodes, or "head+" and "body+" before one, which say what it answers before; then it
// waits until the client has that.
type resets struct {
	script
	arrived chan struct{} // at the client
	over    chan struct{} // the test is
}

func newResets(t *testing.T) (*resets, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &resets{script{seen: map[string]int{}}, make(chan struct{}), make(chan struct{})}
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	all.Go(func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			all.Go(func() { s.serve(c) }) // ends with the connection
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		close(s.over)
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return s, l.Addr().String()
}

func (s *resets) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	if _, err := r.Discard(len(http2.ClientPreface)); err != nil {
		return
	}
	f := http2.NewFramer(c, r)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = f.WriteSettings()
	heads := map[uint32]*http2.MetaHeadersFrame{}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				_ = f.WritePing(true, frame.Data)
			}
		case *http2.MetaHeadersFrame:
			heads[frame.StreamID] = frame
		}
		if id := frame.Header().StreamID; id != 0 && frame.Header().Flags.Has(http2.FlagDataEndStream) && heads[id] != nil { // of HEADERS, too
			s.play(f, id, heads[id])
			delete(heads, id)
		}
	}
}

// play does what the script of a request says that is here as a whole.
func (s *resets) play(f *http2.Framer, id uint32, head *http2.MetaHeadersFrame) {
	fields := http.Header{}
	for _, h := range head.RegularFields() {
		fields.Add(h.Name, h.Value)
	}
	scenario, words := fields.Get("x-scenario"), strings.Fields(fields.Get("x-script"))
	s.mu.Lock()
	n := s.seen[scenario]
	s.seen[scenario]++
	s.mu.Unlock()
	before, word, found := strings.Cut(words[min(n, len(words)-1)], "+")
	if !found {
		before, word = "", before
	}
	answer := func(status string, end bool) {
		var block bytes.Buffer
		_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: status})
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
	}
	if before != "" {
		answer("200", false)
	}
	if before == "body" {
		_ = f.WriteData(id, false, []byte("piece"))
	}
	if before != "" {
		select {
		case <-s.arrived:
		case <-s.over:
			return
		}
	}
	if code, ok := resetCodes[word]; ok {
		_ = f.WriteRSTStream(id, code)
		return
	}
	answer(word, true)
}

// TestStreamResetsAsEnvoy has an application reset streams, before and within its answers, under policies that name that and
// that do not: statuses, flags and the attempts that it sees are those of Envoy. Nothing is sent again that the policy does
// not ask for, though a refused stream was not processed: how often an application is asked is the user's say.
func TestStreamResetsAsEnvoy(t *testing.T) {
	t.Parallel()
	alike(t, func() differences { return resetDifferences(t) })
}

func resetDifferences(t *testing.T) differences {
	t.Helper()
	app, at := newResets(t)
	policies := []retryCase{{name: "refusedstream", istio: "retries: {attempts: 2, retryOn: refused-stream, backoff: 1ms}", envoy: "num_retries: 2, retry_on: refused-stream"}}
	for _, c := range retryCases {
		switch c.name {
		case "default", "none", "5xx", "one", "gateway", "before", "connect", "codes", "grpc":
			policies = append(policies, c)
		}
	}
	virtual, routes := retryConfigs(policies, "")
	e := newEnvoy(t, routes, "    typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}\n", at)
	m := up(t, strings.Replace(service("web", "app: web"), "name: http,", "name: http2,", 1)+workload("web", "v1", 1, "sidecar.istio.io/inject", "false")+virtual, apps(at))
	var all []retryScenario
	for _, c := range policies {
		for _, s := range []string{
			"refused 200", "refused", "refused refused 503 200", "refused cancel 200", "cancel 200", "internal 200", "calm", "none 200", "protocol 200", "protocol",
			"503 refused 200", "head+internal", "head+refused 200", "body+cancel", "body+refused", "body+protocol",
		} {
			all = append(all, retryScenario{c.name, s, "GET"}, retryScenario{c.name, s, "PUT"})
			if c.istio != "" {
				all = append(all, retryScenario{c.name, s, "POST"})
			}
		}
	}
	run := func(address string) []string {
		app.reset()
		c := plain(address)
		var got []string
		for i, s := range all {
			res, err := c.Do(s.request(t, i, "body"))
			if err != nil {
				t.Fatalf("%v: %v", s, err)
			}
			if strings.Contains(s.script, "+") {
				app.arrived <- struct{}{}
			}
			_, err = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			got = append(got, fmt.Sprintf("%d, whole %t, after %d", res.StatusCode, err == nil, app.attempts(scenarioName(i))))
		}
		return got
	}
	differ, tally := compareRuns(m, e, all, run)
	t.Logf("%d scenarios with %v", len(all), tally)
	return differ
}
