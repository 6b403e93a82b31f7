package e2e

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// resetCodes are the words of a resets' script that end a stream.
var resetCodes = map[string]http2.ErrCode{
	"refused": http2.ErrCodeRefusedStream, "cancel": http2.ErrCodeCancel, "internal": http2.ErrCodeInternal, "calm": http2.ErrCodeEnhanceYourCalm,
	"protocol": http2.ErrCodeProtocol, "none": http2.ErrCodeNo,
}

// serveResets speaks HTTP/2. A word is a status, one of resetCodes, or "head+" and "body+" before one, which say what is answered
// before; then it waits until the client has that.
func serveResets(s *staged, c net.Conn) {
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
			playReset(s, f, id, heads[id])
			delete(heads, id)
		}
	}
}

// playReset does what the script of a request says that is here as a whole.
func playReset(s *staged, f *http2.Framer, id uint32, head *http2.MetaHeadersFrame) {
	fields := http.Header{}
	for _, h := range head.RegularFields() {
		fields.Add(h.Name, h.Value)
	}
	before, word, found := strings.Cut(s.next(fields), "+")
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
		s.answered()
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
	app, at := newStaged(t, serveResets)
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
	return app.compare(t, m, e, all, func(script string) bool { return strings.Contains(script, "+") })
}
